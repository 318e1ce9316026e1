package runner

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"viver.lan/internal/livelayer"
	"viver.lan/internal/runes"
	"viver.lan/internal/sleep"
)

// A user who comes with a change of the runes is there without a boot, and one who goes
// is locked; when the runes cannot be read, nobody is.
func TestAccountsFollowTheRunes(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("files of other users are root's to make")
	}
	root := t.TempDir()
	for name, text := range map[string]string{"etc/passwd": "root:x:0:0::/root:/bin/sh\n", "etc/group": "root:x:0:\n"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	r := &runner{peopleChanged: make(chan people, 1), tools: tools{
		open:  func() (*runes.System, error) { return runes.OpenSystem(runes.Target{Root: root}) },
		board: &board{file: filepath.Join(t.TempDir(), "runes.json"), log: log},
		log:   log,
	}}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.keepAccounts(ctx) }()
	load := func(users string) []runes.Bundle {
		list, errs := runes.Load(fstest.MapFS{"users/rune.toml": &fstest.MapFile{Data: []byte("name = \"users\"\n" + users)}})
		if len(errs) > 0 {
			t.Fatal(errs)
		}
		return list
	}
	deadline, stop := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("nothing changed for a minute"))
	defer stop()
	wait := func(file, want string) {
		t.Helper()
		for {
			if data, _ := os.ReadFile(filepath.Join(root, file)); strings.Contains(string(data), want) {
				return
			}
			if err := sleep.For(deadline, 10*time.Millisecond); err != nil {
				t.Fatalf("%s lacks %q: %v", file, want, err)
			}
		}
	}
	const anna, bob = "[[user]]\nname = \"anna\"\nuid = 3001\n", "[[user]]\nname = \"bob\"\nuid = 3002\n"
	latest(r.peopleChanged, people{bundles: load(anna), whole: true})
	wait("etc/passwd", "anna:x:3001:")
	latest(r.peopleChanged, people{bundles: load(bob), whole: false})
	wait("etc/passwd", "bob:x:3002:")
	if data, _ := os.ReadFile(filepath.Join(root, "etc/shadow")); !strings.Contains(string(data), "anna:*:") {
		t.Errorf("locked, although the runes could not be read:\n%s", data)
	}
	latest(r.peopleChanged, people{bundles: load(bob), whole: true})
	wait("etc/shadow", "anna:!*:")
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// What cannot be read of a live layer may have users: nobody is locked for it.
func TestABrokenLayerIsNotTheWhole(t *testing.T) {
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	dir := t.TempDir()
	r := &runner{config: Config{Bundles: func() ([]runes.Bundle, error) { return nil, nil }},
		tools: tools{board: &board{file: filepath.Join(dir, "runes.json"), ports: filepath.Join(dir, "ports.json"), log: log}, log: log}}
	for _, users := range []string{"", "[[user]]\nname = 7\n"} {
		data := "name = \"users\"\n" + users
		var archive bytes.Buffer
		w := tar.NewWriter(&archive)
		err := w.WriteHeader(&tar.Header{Name: "users/rune.toml", Mode: 0o644, Size: int64(len(data))})
		_, errWrite := w.Write([]byte(data))
		if err := errors.Join(err, errWrite, w.Close()); err != nil {
			t.Fatal(err)
		}
		r.added = livelayer.Layer{Runes: archive.Bytes()}
		if r.read(t.Context()); r.people.whole != (users == "") {
			t.Errorf("%q: whole is %v", users, r.people.whole)
		}
	}
}
