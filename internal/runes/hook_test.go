package runes

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
)

// inNamespaces re-executes the calling test as root of its own user, mount and
// network namespaces and reports whether we are there already. "Namespace
// root" is enough for what uinit does with real root.
func inNamespaces(t *testing.T) bool {
	t.Helper()
	const mark = "VIVER_TEST_IN_NAMESPACES"
	if os.Getenv(mark) == t.Name() {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), mark+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in namespaces: %v\n%s", err, out)
	}
	t.Logf("%s", out)
	return false
}

// hostRoot makes a root with the programs of this machine in it.
func hostRoot(t *testing.T) Target {
	t.Helper()
	must(t, syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	where := image(t, map[string]string{"usr/": "", "etc/": "", "bin": "->usr/bin", "lib": "->usr/lib", "lib64": "->usr/lib64", "sbin": "->usr/sbin"})
	usr := filepath.Join(where.Root, "usr")
	must(t, syscall.Mount("/usr", usr, "", syscall.MS_BIND|syscall.MS_REC, ""))
	t.Cleanup(func() {
		if err := syscall.Unmount(usr, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return where
}

func TestNetnsHooks(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	where := hostRoot(t)
	fsys := fstest.MapFS{}
	for name, script := range map[string]string{
		"good": "#!/bin/sh -e\r\n" +
			"test -c /dev/null -a -d /proc/self -a -d /sys/class\r\n" +
			"test \"$VIVER_HOSTNAME $VIVER_FIRSTNODE $VIVER_PREFIXLENGTH\" = 'node-1a2b false 16'\r\n" +
			"pwd > /etc/hooked\r\ncat /etc/laid >> /etc/hooked\r\necho here > /run/hooked\r\n",
		"failing":   "#!/bin/sh\necho first\necho it went wrong >&2\nexit 3\n",
		"missing":   "#!/opt/bin/nosuchshell\n",
		"lingering": "#!/bin/sh\nsleep 600 &\n",
	} {
		fsys[name+"/rune.toml"] = &fstest.MapFile{Data: []byte(`name = "` + name + `"`), Mode: 0o644}
		fsys[name+"/hooks/root"] = &fstest.MapFile{Data: []byte(script), Mode: 0o644}
	}
	fsys["good/files/etc/laid"] = &fstest.MapFile{Data: []byte("files come first\n"), Mode: 0o644}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)

	results := apply(t, where, one(t, fsys), testFacts())

	if r := results["good"]; r.Outcome != Applied || read(t, where, "/etc/hooked") != "/\nfiles come first\n" || read(t, where, "/run/hooked") != "here\n" {
		t.Errorf("%+v, %q, %q", r, read(t, where, "/etc/hooked"), read(t, where, "/run/hooked"))
	}
	if r := results["failing"]; r.Outcome != Degraded || r.Reason != "hook root: exit status 3: it went wrong" {
		t.Errorf("%+v", r)
	}
	if r := results["missing"]; r.Outcome != Degraded || !strings.Contains(r.Reason, "/opt/bin/nosuchshell, which is not in the image") {
		t.Errorf("%+v", r)
	}
	if r := results["lingering"]; r.Outcome != Applied {
		t.Errorf("%+v", r)
	}
	after, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	if string(after) != string(mounts) {
		t.Errorf("mounts were left:\n%s\nbefore:\n%s", after, mounts)
	}
	if left, _ := os.ReadDir(filepath.Join(where.Run, "viver/hooks")); len(left) != 0 {
		t.Errorf("hooks were left: %v", left)
	}
	for _, name := range []string{"dev", "proc", "sys", "run"} {
		if left, _ := os.ReadDir(filepath.Join(where.Root, name)); len(left) != 0 {
			t.Errorf("/%s of the root holds %v", name, left)
		}
	}
}

func TestHookMayBeABinary(t *testing.T) {
	h, err := newHook(node{data: []byte("\x7fELF…")})
	if err != nil || h.interpreter != nil {
		t.Errorf("%+v, %v", h, err)
	}
	if _, err := newHook(node{link: "/bin/true"}); err == nil {
		t.Error("a link was taken for a hook")
	}
	h, err = newHook(node{data: []byte("#! /usr/bin/env  python3 -E\r\n")})
	if err != nil || strings.Join(h.interpreter, "|") != "/usr/bin/env|python3 -E" {
		t.Errorf("%q, %v", h.interpreter, err)
	}
}
