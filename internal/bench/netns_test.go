package bench

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"viver.lan/internal/bench/figures"
	"viver.lan/internal/netbed"
	"viver.lan/internal/netbed/netbedtest"
)

// The benchmark itself, with a file so small that its figures mean nothing:
// that it runs, and that every system delivers the right bytes.
//
//	origin, 2 nodes, 400 Mbit/s
func TestNetnsMeasuresASmallFile(t *testing.T) {
	netbedtest.Need(t, "nbdkit", "nsenter")
	daemon := os.Getenv("VIVER_BENCH_VFIELD")
	if !netbed.Inside() {
		daemon = filepath.Join(t.TempDir(), "vfield")
		build := exec.Command("go", "build", "-o", daemon, "viver.lan/cmds/vfield")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build the daemon: %v\n%s", err, out)
		}
	}
	if !netbedtest.Enter(t, "VIVER_BENCH_VFIELD="+daemon) {
		return
	}
	out := t.TempDir()
	o := Options{Only: []string{"nbd:2", "vfield:2"}, Runs: 1, Megabytes: 16, Mbit: 400, VField: daemon, Out: out, Print: io.Discard}
	if err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(out, rowsFile))
	if err != nil {
		t.Fatal(err)
	}
	var rows []figures.Row
	if err := json.Unmarshal(text, &rows); err != nil || len(rows) != 2 {
		t.Fatalf("%v in %s", err, text)
	}
	for _, r := range rows {
		if r.N != 2 || r.FileBytes != 16e6 || !(r.MeanVsNBD1 > 0) || r.WorstVsNBD1 > r.MeanVsNBD1 || !(r.OriginCopies > 0.9) {
			t.Errorf("%+v", r)
		}
	}
	t.Logf("%s", text)
	if page, err := os.ReadFile(filepath.Join(out, tableFile)); err != nil || len(page) == 0 {
		t.Errorf("table: %v", err)
	}
}
