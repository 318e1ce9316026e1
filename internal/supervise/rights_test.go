package supervise

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What a program does before every start, and what it may do then, on a machine
// where we may give nothing away: our own user, no capability.
func TestRightsAreGivenUp(t *testing.T) {
	out, err := os.Create(filepath.Join(t.TempDir(), "status"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	prepared := 0
	s := &supervisor{
		programs: []program{{name: "cat", path: "/bin/cat", args: []string{"/proc/self/status"},
			rights: &rights{uid: uint32(os.Getuid()), gid: uint32(os.Getgid())}, prepare: func() { prepared++ }}},
		output: out, started: func(string, int) {}, shuttingDown: func() bool { return true }, backoff: time.Millisecond,
		log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if err := s.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	if os.Getuid() != 0 {
		t.Skipf("giving capabilities up takes root; the program: %s", status)
	}
	for _, want := range []string{"NoNewPrivs:\t1\n", "CapBnd:\t0000000000000000\n", "CapEff:\t0000000000000000\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("no %q in %s", want, status)
		}
	}
	if prepared != 1 {
		t.Errorf("prepared %d times, want once", prepared)
	}
	ours, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(ours), "NoNewPrivs:\t1\n") {
		t.Error("the supervisor gave its own rights up")
	}
}
