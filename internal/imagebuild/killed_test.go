package imagebuild

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"viver.lan/internal/imagedir"
	"viver.lan/internal/testlinux"
)

// TestKilledAnywhere kills builds at each step that they tell of, in processes of their
// own. The image that was there stays whole, what a killed one leaves passes for none, and
// the next build clears that away.
func TestKilledAnywhere(t *testing.T) {
	const at, source, lib, output = "VIVER_TEST_KILL_AT", "VIVER_TEST_SOURCE", "VIVER_TEST_LIB", "VIVER_TEST_OUTPUT"
	c := Config{Source: os.Getenv(source), Lib: os.Getenv(lib), Output: os.Getenv(output), Key: testlinux.Key(), Level: 1, Created: time.Unix(1e9, 0)}
	if left, err := strconv.Atoi(os.Getenv(at)); err == nil {
		step := func() {
			if left--; left == 0 {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {} // it comes
			}
		}
		var last string
		c.Note = func(string) { step() }
		c.Progress = func(task string, done, total int64) {
			if task != last || done == total {
				step()
			}
			last = task
		}
		if _, err := Build(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		return
	}
	testlinux.Tool(t, "mksquashfs")
	dir := t.TempDir()
	c.Source, c.Lib, c.Output = testlinux.Write(t, testlinux.Files(t)), testlinux.Lib(t), filepath.Join(dir, "out")
	if _, err := Build(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	kills, parts := 0, 0
	for {
		cmd := exec.Command(self, "-test.run", "^TestKilledAnywhere$")
		cmd.Env = append(os.Environ(), at+"="+strconv.Itoa(kills+1), source+"="+c.Source, lib+"="+c.Lib, output+"="+c.Output)
		said, err := cmd.CombinedOutput()
		if err == nil {
			break
		}
		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGKILL || kills > 1000 {
			t.Fatalf("%v after %d that were killed: %s", err, kills, said)
		}
		kills++
		names := testlinux.Names(t, dir)
		if len(names) > 2 {
			t.Errorf("killed at step %d: parts of several builds: %q", kills, names)
		}
		for _, name := range names {
			v, err := imagedir.Verify(t.Context(), filepath.Join(dir, name), c.Key.Public(), nil)
			if whole := err == nil && v.Err() == nil; whole != (name == "out") {
				t.Errorf("killed at step %d: %s whole: %v, %v", kills, name, whole, err)
			}
		}
		parts += len(names) - 1
	}
	if kills < 8 || parts < kills/2 {
		t.Errorf("%d builds were killed and left %d parts", kills, parts)
	}
	if names := testlinux.Names(t, dir); !slices.Equal(names, []string{"out"}) {
		t.Errorf("the last one leaves %q", names)
	}
}
