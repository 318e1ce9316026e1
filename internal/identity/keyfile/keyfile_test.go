package keyfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/identity"
)

func TestOpenKeepsTheKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "identity.key")
	if _, err := Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("read before there is one: %v", err)
	}
	first, made, err := Open(path)
	if err != nil || !made {
		t.Fatalf("made %v, %v", made, err)
	}
	again, made, err := Open(path)
	if err != nil || made || again.ID() != first.ID() {
		t.Fatalf("%v made %v, %v; want %v", again, made, err, first)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", fi.Mode(), err)
	}
}

func TestBadKeyFilesAreRefused(t *testing.T) {
	dir := t.TempDir()
	good, _, err := Open(filepath.Join(dir, "good"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := good.Text()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("good", link); err != nil {
		t.Fatal(err)
	}
	write := func(name string, content []byte, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, path := range []string{link, dir,
		write("open", text, 0o644), write("empty", nil, 0o600), write("cut", text[:len(text)/2], 0o600),
		write("other", []byte(strings.ReplaceAll(string(text), "PRIVATE", "PUBLIC")), 0o600),
	} {
		if _, made, err := Open(path); err == nil || made {
			t.Errorf("%s: made %v, %v", filepath.Base(path), made, err)
		}
	}
}

func TestEachStartIsGreater(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sequence")
	var last uint64
	for i, clock := range []uint64{1000, 1000, 5, 2000, 0, 1 << 62} {
		start, err := NextStart(path, clock)
		if err != nil || start <= last || identity.Sequence(start) <= identity.Sequence(last) {
			t.Errorf("start %d at %d: %d after %d, %v", i, clock, start, last, err)
		}
		last = start
	}
	for _, junk := range []string{"", "x", "-1", "99999999999999999999", "1152921504606846976"} {
		if err := os.WriteFile(path, []byte(junk), 0o600); err != nil {
			t.Fatal(err)
		}
		if start, err := NextStart(path, 7); err != nil || start != 7 {
			t.Errorf("after %q: %d, %v", junk, start, err)
		}
	}
	if start, err := NextStart(filepath.Join(path, "nowhere"), 7); err == nil || start != 7 {
		t.Errorf("where nothing can be kept: %d, %v", start, err)
	}
}
