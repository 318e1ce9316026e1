package runner

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"

	"viver.lan/internal/runes"
)

// Two runes may lay one path, one after the other: what was there before them is back
// when the last one goes, whichever that is.
func TestTheLastRuneRestoresTheOriginal(t *testing.T) {
	for what, order := range map[string][]string{"the owner goes first": {"a", "b"}, "the owner goes last": {"b", "a"}} {
		t.Run(what, func(t *testing.T) {
			root, dir := t.TempDir(), t.TempDir()
			motd := filepath.Join(root, "motd")
			if err := os.WriteFile(motd, []byte("of the image"), 0o644); err != nil {
				t.Fatal(err)
			}
			log := slog.New(slog.NewTextHandler(t.Output(), nil))
			common := tools{open: func() (*runes.System, error) { return runes.OpenSystem(runes.Target{Root: root}) }, log: log, originals: filepath.Join(dir, "originals"),
				board: &board{file: filepath.Join(dir, "runes.json"), ports: filepath.Join(dir, "ports.json"), log: log}}
			keep := func(name string) *keeper {
				bundles, errs := runes.Load(fstest.MapFS{name + "/rune.toml": {Data: []byte("name = \"" + name + "\"")}, name + "/files/motd": {Data: []byte("of " + name)}})
				if len(errs) > 0 {
					t.Fatal(errors.Join(errs...))
				}
				return &keeper{tools: common, bundle: bundles[0].AllLive(), have: common.board.get(name)}
			}
			see := func(k *keeper, gone bool, want string) {
				t.Helper()
				if err := k.converge(t.Context(), view{gone: gone}); err != nil {
					t.Fatal(err)
				}
				if data, err := os.ReadFile(motd); err != nil || string(data) != want {
					t.Errorf("%q, %v, want %q", data, err, want)
				}
			}
			keepers := map[string]*keeper{"a": keep("a"), "b": keep("b")}
			see(keepers["b"], false, "of b")
			see(keepers["a"], false, "of a") // comes later and has it from then on
			first, last := keepers[order[0]], keepers[order[1]]
			see(first, true, "of a")
			see(last, false, "of "+order[1])
			see(last, true, "of the image")
		})
	}
}

// One who has put the original back and could not note it any more is not believed.
func TestAnInterruptedRestoreLosesNothing(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	motd := filepath.Join(root, "motd")
	if err := os.WriteFile(motd, []byte("of the image"), 0o644); err != nil {
		t.Fatal(err)
	}
	system, err := runes.OpenSystem(runes.Target{Root: root})
	if err != nil {
		t.Fatal(err)
	}
	defer system.Close()
	bundles, errs := runes.Load(fstest.MapFS{"a/rune.toml": {Data: []byte("name = \"a\"")}, "a/files/motd": {Data: []byte("of a")}})
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	k := &keeper{bundle: bundles[0].AllLive(), have: RuneState{Name: "a", Files: []string{"/motd"}},
		tools: tools{log: log, originals: filepath.Join(dir, "originals"), board: &board{file: filepath.Join(dir, "runes.json"), ports: filepath.Join(dir, "ports.json"), log: log}}}
	if err := errors.Join(k.layFile(system, system.Wanted(k.bundle, runes.Facts{}).Files[0]), k.removeFile(system, "/motd")); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(motd); err != nil || string(data) != "of the image" {
		t.Errorf("%q, %v", data, err)
	}
}
