package main

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Each command line of viver that a page shows is one that viver takes.
func TestPagesShowCommandsThatExist(t *testing.T) {
	pages, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	ofRunes, err := filepath.Glob("../../docs/runes/*.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := 0
	for _, name := range append(append(pages, ofRunes...), "../../README.md", "../../CONTRIBUTING.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^    (?:images/out/bin/)?viver ([a-z].*?)(?: +#.*)?$`).FindAllStringSubmatch(string(text), -1) {
			shown++
			root := newRoot(environment{stdout: io.Discard, stderr: io.Discard, executable: os.Executable, configDir: configDir})
			cmd, rest, err := root.Find(strings.Fields(m[1]))
			if err == nil && !cmd.Runnable() {
				t.Errorf("%s: viver %s: nothing to run", name, m[1])
				continue
			}
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if err == nil {
				err = cmd.ValidateArgs(cmd.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: viver %s: %v", name, m[1], err)
			}
		}
	}
	if shown < 5 {
		t.Errorf("the pages show %d commands", shown)
	}
}
