package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/machine"
	"viver.lan/internal/netbed/netbedtest"
)

// What waits sees what is mounted before it begins, and nothing of what is mounted
// afterwards; and it begins when it is let.
func TestNetnsDaemonsKeepTheMountsOfTheirBeginning(t *testing.T) {
	if !netbedtest.Enter(t) {
		return
	}
	dir, host := t.TempDir(), machine.Host{}
	mount := func(name string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := host.Mount(name, path, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = host.Unmount(path, 0) })
	}
	cmd := exec.Command("sh", "-c", `cat <&4; until [ -e "$0/go" ]; do sleep 0.01; done; cat /proc/self/mountinfo`, dir)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	starts, err := startWaiting(host, cmd, 2)
	if err != nil {
		t.Fatal(err)
	}
	mount("before")
	if err := begin(host, starts[1]); err != nil {
		t.Fatal(err)
	}
	mount("after")
	if err := os.WriteFile(filepath.Join(dir, "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if !strings.Contains(out.String(), dir+"/before") || strings.Contains(out.String(), dir+"/after") {
		t.Errorf("before or after is wrong in\n%s", &out)
	}
}
