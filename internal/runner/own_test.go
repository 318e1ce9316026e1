package runner

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"viver.lan/internal/booted"
	"viver.lan/internal/runes"
)

// A service that cannot be noted is not left running: nobody would ever end it.
func TestServiceThatCannotBeNoted(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root starts programs in a booted system")
	}
	dir := t.TempDir()
	o, err := newOwn(t.Context(), &own{system: booted.System{Process: "/proc/self"}, dir: filepath.Join(dir, "services"),
		cgroup: filepath.Join(dir, "cgroup"), log: slog.New(slog.DiscardHandler), shuttingDown: func() bool { return false }})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(o.dir); err != nil {
		t.Fatal(err)
	}
	s := stateOf("a", runes.Service{Name: "web", Start: []string{"/bin/sleep", "3600"}})
	r := record{Service: s}
	if err := o.launch(&r); err == nil || r.Process == 0 {
		t.Fatalf("process %d, %v: want one that is not noted, in a directory that is gone", r.Process, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := awaitEnd(ctx, r); err != nil {
		killAll(r)
		t.Errorf("it still runs: %v", err)
	}
}
