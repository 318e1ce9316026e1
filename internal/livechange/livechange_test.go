package livechange

import (
	"bytes"
	"reflect"
	"slices"
	"testing"
	"testing/fstest"

	"viver.lan/internal/livelayer"
	"viver.lan/internal/runes"
)

func bundle(t *testing.T, name, text string) runes.Bundle {
	t.Helper()
	list, errs := runes.Load(fstest.MapFS{
		name + "/rune.toml":      {Data: []byte("name = \"" + name + "\"\ndescription = \"a test\"\n")},
		name + "/files/etc/text": {Data: []byte(text)},
	})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return list[0]
}

// names are the bundles of a layer, which has to survive its encoding.
func names(t *testing.T, l livelayer.Layer) (list []string) {
	t.Helper()
	data, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := livelayer.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	bundles, err := Runes(back)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bundles {
		list = append(list, b.Name)
	}
	return list
}

func TestRunes(t *testing.T) {
	l := Empty()
	var err error
	if got := names(t, l); len(got) != 0 {
		t.Errorf("an empty layer has %v", got)
	}
	for _, b := range []runes.Bundle{bundle(t, "web", "one"), bundle(t, "batch", "one"), bundle(t, "web", "two")} {
		if l, err = Add(l, b); err != nil {
			t.Fatal(err)
		}
	}
	if got := names(t, l); !slices.Equal(got, []string{"batch", "web"}) || !bytes.Contains(l.Runes, []byte("two")) || bytes.Count(l.Runes, []byte("one")) != 1 {
		t.Errorf("it has %v", got)
	}
	before := l
	if l, err = Remove(l, "web"); err != nil {
		t.Fatal(err)
	}
	if l, err = Remove(l, "time"); err != nil { // of the image
		t.Fatal(err)
	}
	if got := names(t, l); !slices.Equal(got, []string{"batch"}) || !slices.Equal(l.Off, []string{"time", "web"}) {
		t.Errorf("without them it has %v, off are %v", got, l.Off)
	}
	if _, err := Remove(l, "time"); err == nil {
		t.Error("it is removed twice")
	}
	if l, err = Add(l, bundle(t, "web", "three")); err != nil || !slices.Equal(l.Off, []string{"time"}) {
		t.Errorf("back again off are %v, %v", l.Off, err)
	}
	if len(before.Off) > 0 || !slices.Equal(names(t, before), []string{"batch", "web"}) {
		t.Errorf("the layer before is now %+v", before)
	}
}

func TestFiles(t *testing.T) {
	l := Empty()
	var err error
	for _, text := range []string{"one", "two"} {
		if l, err = PutFile(l, "/etc/motd", 0o640, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if l, err = PutFile(l, `/srv/a "b" é/x`, 0o755, nil); err != nil {
		t.Fatal(err)
	}
	bundles, err := Runes(l)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []runes.FileWords{{Path: "/etc/motd", Mode: "640"}, {Path: `/srv/a "b" é/x`, Mode: "755"}} {
		i := slices.IndexFunc(bundles, func(b runes.Bundle) bool { return b.Name == FileRune(want.Path) })
		if i < 0 || !slices.ContainsFunc(bundles[i].Describe().Files, func(f runes.FileWords) bool { return f.Path == want.Path && f.Mode == want.Mode }) {
			t.Errorf("%+v is not laid", want)
		}
	}
	if bytes.Contains(l.Runes, []byte("one")) || !bytes.Contains(l.Runes, []byte("two")) || len(bundles) != 2 {
		t.Errorf("it has %d bundles", len(bundles))
	}
	if l, err = RemoveFile(l, "/etc/motd"); err != nil || len(names(t, l)) != 1 || len(l.Off) > 0 {
		t.Errorf("after removal: %v, off %v, %v", names(t, l), l.Off, err)
	}
	if _, err := RemoveFile(l, "/etc/motd"); err == nil {
		t.Error("it is removed twice")
	}
	for _, dest := range []string{"", "/", "etc/motd", "/etc/../motd", "/etc/", "/etc/x.tmpl", "/a\x00b"} {
		if _, err := PutFile(l, dest, 0o644, nil); err == nil {
			t.Errorf("%q is a file's place", dest)
		}
	}
}

func TestSettings(t *testing.T) {
	one, two := "1", "2"
	l := Set(Set(Set(Empty(), "compile", "jobs", &one), "time", "servers", &one), "compile", "jobs", &two)
	if want := map[string]map[string]string{"compile": {"jobs": "2"}, "time": {"servers": "1"}}; !reflect.DeepEqual(l.Settings, want) {
		t.Errorf("settings: %v", l.Settings)
	}
	after := Set(Set(l, "compile", "jobs", nil), "none", "x", nil)
	if want := map[string]map[string]string{"time": {"servers": "1"}}; !reflect.DeepEqual(after.Settings, want) || len(l.Settings) != 2 {
		t.Errorf("without it: %v, before %v", after.Settings, l.Settings)
	}
	names(t, after)
}
