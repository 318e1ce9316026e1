// Package netbedtest lets a test run in namespaces of its own, where it can
// make beds. It knows tests; package netbed does not.
//
// The invariant: a test that is not inside does nothing but start itself
// inside, and fails or skips as that one does.
package netbedtest

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/netbed"
)

// farewell is how long before our own end a test that hangs is ended, so that
// it can say where.
const farewell = 10 * time.Second

// Need skips the test when a program that it runs is not installed.
func Need(t *testing.T, programs ...string) {
	t.Helper()
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("%s is not installed", name)
		}
	}
}

// Enter returns true in the process that may make beds. Everywhere else it
// runs the calling test again in such a process, reports how that went, and
// returns false:
//
//	if !netbedtest.Enter(t) {
//		return
//	}
//	bed, err := netbed.New(netbed.Config{Nodes: 4})
//
// That process has a /run of its own, where ip-netns(8) and others keep files.
// What the test starts there ends with it, so no process needs a death signal:
// that of Linux comes when the thread ends that started the process, and a
// thread of Go may end at any time.
//
// env is added to the environment of that process, as "NAME=value". Works for
// top-level tests only, also for those that are parallel.
func Enter(t *testing.T, env ...string) bool {
	t.Helper()
	return enter(t, func(*exec.Cmd) {}, env...)
}

// EnterWithUsers is Enter for a test that needs other users than root as well.
// Only root can give it those; for others the test is skipped.
func EnterWithUsers(t *testing.T, env ...string) bool {
	t.Helper()
	if !netbed.Inside() && os.Getuid() != 0 {
		t.Skip("other users than our own are root's to give")
	}
	all := []syscall.SysProcIDMap{{Size: 1 << 16}}
	return enter(t, func(cmd *exec.Cmd) {
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = all, all
		cmd.SysProcAttr.GidMappingsEnableSetgroups = true
	}, env...)
}

func enter(t *testing.T, edit func(*exec.Cmd), env ...string) bool {
	t.Helper()
	if netbed.Inside() {
		if err := netbed.Settle(); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
			t.Fatalf("make a /run of our own: %v", err)
		}
		return true
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v"}
	if end, ok := t.Deadline(); ok {
		args = append(args, "-test.timeout="+max(time.Second, time.Until(end)-farewell).String())
	}
	cmd, err := netbed.Self(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Env, env...)
	edit(cmd)
	// The child dies with the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	out, err := cmd.CombinedOutput()
	t.Logf("in its own namespaces:\n%s", out)
	switch {
	case err != nil && strings.Contains(err.Error(), "fork/exec"):
		t.Skipf("this kernel gives no user namespaces: %v", err)
	case err != nil:
		t.Errorf("inside: %v", err)
	case strings.Contains(string(out), "--- SKIP: "+t.Name()+" ("):
		t.Skip("skipped inside, see above")
	}
	return false
}
