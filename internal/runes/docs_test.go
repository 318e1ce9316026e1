package runes

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
)

// TestDocsTellTheTruth holds docs/runes.md to the code: its example works, its
// tables name every fact, function, condition and built-in rune.
func TestDocsTellTheTruth(t *testing.T) {
	data, err := os.ReadFile("../../docs/runes.md")
	must(t, err)
	docs := string(data)
	words := factNames()
	for name := range templateFuncs(scope{}) {
		words = append(words, name)
	}
	for _, b := range builtins(t) {
		words = append(words, b.Name)
	}
	for _, word := range append(words, "exists", "any", "missing", "plain", "facts") {
		if !regexp.MustCompile("(?m)^ *\\|.*`" + word + "\\b").MatchString(docs) {
			t.Errorf("no table of docs/runes.md names %s", word)
		}
	}

	fsys := fstest.MapFS{}
	for _, m := range regexp.MustCompile("(?s)\n`([a-z/.]+)`:\n\n```[a-z]*\n(.*?)```").FindAllStringSubmatch(docs, -1) {
		fsys["hello/"+m[1]] = &fstest.MapFile{Data: []byte(m[2]), Mode: 0o644}
	}
	if len(fsys) != 3 {
		t.Fatalf("the example has %d files", len(fsys))
	}
	for name := range fsys {
		if !strings.Contains(docs, "    viver/runes/"+name+"\n") {
			t.Errorf("the listing lacks %s", name)
		}
	}
	where := image(t, map[string]string{"usr/bin/python3": ""})
	r := apply(t, where, one(t, fsys), testFacts())["hello"]
	if r.Outcome != Applied || len(r.Files) != 3 || read(t, where, "/srv/hello/index.html") != "<h1>node-1a2b</h1><p>10.77.3.4</p>\n" {
		t.Errorf("%+v", r)
	}
}
