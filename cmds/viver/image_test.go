package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/imagedir"
	"viver.lan/internal/manifest"
	"viver.lan/internal/testlinux"
)

// asViver makes the test binary behave as viver itself.
const asViver = "VIVER_TEST_AS_VIVER"

func TestMain(m *testing.M) {
	if os.Getenv(asViver) != "" {
		main()
	}
	if store := os.Getenv(asVolume); store != "" {
		fmt.Fprintln(os.Stderr, becomeVolume(store))
		os.Exit(1)
	}
	// Whoever runs the tests keeps their own key out of them.
	dir, err := os.MkdirTemp("", "viver-config")
	if err == nil {
		err = os.Setenv("XDG_CONFIG_HOME", dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

// viver prepares a command line of viver in a process of its own.
func viver(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), asViver+"=1")
	return cmd
}

// tree makes a root that passes for a Linux, with size bytes of noise in it,
// and a lib directory.
func tree(t *testing.T, size int) (root, lib string) {
	t.Helper()
	testlinux.Tool(t, "mksquashfs")
	return testlinux.Write(t, append(testlinux.Files(t), testlinux.File{Name: "noise", Data: testlinux.Noise(size)})), testlinux.Lib(t)
}

// TestNoGoNeeded runs viver where no Go toolchain can be found.
func TestNoGoNeeded(t *testing.T) {
	root, lib := tree(t, 1000)
	path := "/usr/sbin:/usr/bin:/sbin:/bin"
	for _, dir := range filepath.SplitList(path) {
		if _, err := os.Stat(filepath.Join(dir, "go")); err == nil {
			// A distribution's own Go lies among the tools we need.
			path = onlyTools(t, "mksquashfs")
		}
	}
	image := filepath.Join(t.TempDir(), "image")
	build := viver(t, "image", "build", root, "-o", image, "--lib", lib)
	build.Env = []string{"PATH=" + path, asViver + "=1", "XDG_CONFIG_HOME=" + t.TempDir()}
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	verify := viver(t, "image", "verify", image)
	verify.Env = build.Env
	if out, err := verify.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("complete, 9 files")) {
		t.Fatalf("%v: %s", err, out)
	}
}

// onlyTools makes a directory with links to the named programs.
func onlyTools(t *testing.T, programs ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, p := range programs {
		real, err := exec.LookPath(p)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(real, filepath.Join(dir, p)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestInterrupted interrupts what takes long, when it has begun to write: it
// leaves nothing. A killed one leaves a part that nobody takes for the whole.
func TestInterrupted(t *testing.T) {
	root, lib := tree(t, 96<<20)
	image := filepath.Join(t.TempDir(), "image")
	if out, err := viver(t, "image", "build", root, "-o", image, "--lib", lib, "--level", "1").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	// 96 MiB at level 22 take far longer than it takes to see the file, and
	// grub-mkrescue has to copy them.
	build := []string{"image", "build", root, "--lib", lib, "--level", "22"}
	medium := []string{"medium", "build", image}
	for _, c := range []struct {
		args     []string
		begun    string // a file that shows it
		signal   syscall.Signal
		exitCode int
	}{
		{build, ".out.*.part/root.squashfs", syscall.SIGINT, exitInterrupted},
		{build, ".out.*.part/root.squashfs", syscall.SIGTERM, exitInterrupted},
		{build, ".out.*.part/root.squashfs", syscall.SIGHUP, exitInterrupted},
		{build, ".out.*.part/root.squashfs", syscall.SIGKILL, -1},
		{medium, ".medium.*.part/settings.fat", syscall.SIGINT, exitInterrupted},
	} {
		if c.signal == syscall.SIGHUP && signal.Ignored(c.signal) {
			t.Log("hangup: not tried, since this test runs under nohup and so would the tool")
			continue
		}
		parent := t.TempDir()
		cmd := viver(t, append(c.args[:len(c.args):len(c.args)], "-o", filepath.Join(parent, "out"))...)
		var said bytes.Buffer
		cmd.Stderr = &said
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(3 * time.Minute)
		for {
			if found, _ := filepath.Glob(filepath.Join(parent, c.begun)); len(found) > 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v did not begin: %s", c.args, said.String())
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err := cmd.Process.Signal(c.signal); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // the exit code is what matters
		if got := cmd.ProcessState.ExitCode(); got != c.exitCode {
			t.Errorf("%v, %v: exit code %d, want %d: %s", c.args, c.signal, got, c.exitCode, said.String())
		}
		left := testlinux.Names(t, parent)
		if c.signal != syscall.SIGKILL {
			if len(left) != 0 || !strings.Contains(said.String(), "no incomplete file is left") {
				t.Errorf("%v, %v: left behind %v, said %q", c.args, c.signal, left, said.String())
			}
			continue
		}
		if len(left) != 1 {
			t.Errorf("%v: left behind: %v", c.signal, left)
		}
		for _, name := range left {
			dir := filepath.Join(parent, name)
			if out, err := viver(t, "image", "verify", dir).CombinedOutput(); err == nil {
				t.Errorf("%v: %s passes for an image: %s", c.signal, name, out)
			}
		}
	}
}

// inNamespace re-executes the calling test as root of new user and mount
// namespaces; it returns true inside.
func inNamespace(t *testing.T) bool {
	t.Helper()
	const inside = "VIVER_TEST_INSIDE"
	if os.Getenv(inside) != "" {
		return true
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Skipf("no user namespaces here: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if strings.Contains(string(out), "--- SKIP: "+t.Name()) {
		t.Skipf("skipped inside:\n%s", out)
	}
	return false
}

// TestNetnsFullDisk builds an image and a medium onto a tmpfs that is too small: for the
// first file, for some, and for the last one.
func TestNetnsFullDisk(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	runtime.LockOSThread()
	root, lib := tree(t, 1<<20)
	image := filepath.Join(t.TempDir(), "image")
	build := []string{"image", "build", root, "--lib", lib, "--level", "1"}
	if out, err := viver(t, append(build, "-o", image)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	page := int64(os.Getpagesize())
	var whole int64
	err := filepath.WalkDir(image, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		fi, err := d.Info()
		whole += (fi.Size() + page - 1) / page * page
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	onto := func(size int64, args []string) {
		small := t.TempDir()
		if err := unix.Mount("tmpfs", small, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
			t.Fatal(err)
		}
		out, err := viver(t, append(args[:len(args):len(args)], "-o", filepath.Join(small, "out"))...).CombinedOutput()
		left := testlinux.Names(t, small)
		if size > whole {
			if err != nil || len(left) != 1 {
				t.Errorf("%v onto %d bytes: %v: %s: %v", args, size, err, out, left)
			}
		} else if err == nil || !strings.Contains(string(out), fmt.Sprintf("the disk of %s is full", small)) || len(left) != 0 {
			t.Errorf("%v onto %d bytes: %v: %s: left behind: %v", args, size, err, out, left)
		}
		if err := unix.Unmount(small, 0); err != nil {
			t.Error(err)
		}
	}
	for _, size := range []int64{page, 4 * page, 32 * page, whole / 2, whole - 4*page, whole - page, whole + 1<<20} {
		onto(size, build)
	}
	if _, err := exec.LookPath("grub-mkrescue"); err != nil {
		t.Skip(err)
	}
	whole = 4 << 20 // a medium has more
	onto(whole, []string{"medium", "build", image})
}

// TestNetnsForeignMounts builds from a tree in which other file systems are
// mounted: none of them is in the image, and all are named.
func TestNetnsForeignMounts(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	runtime.LockOSThread()
	root, lib := tree(t, 1000)
	outside := t.TempDir()
	for _, dir := range []string{"mnt/bound", "srv/memory", "tmp", "boot/within"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mount := func(source, dir, kind string, flags uintptr) {
		dir = filepath.Join(root, dir)
		if err := unix.Mount(source, dir, kind, flags, ""); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }) // else its directory cannot be removed
		if err := os.WriteFile(filepath.Join(dir, "not-ours"), []byte("secret"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mount(outside, "mnt/bound", "", unix.MS_BIND)
	mount("tmpfs", "srv/memory", "tmpfs", 0)
	mount("tmpfs", "tmp", "tmpfs", 0)
	mount(filepath.Join(root, "sbin"), "boot/within", "", unix.MS_BIND) // of the tree's own file system
	image := filepath.Join(t.TempDir(), "image")
	args := []string{"image", "build", root, "-o", image, "--lib", lib, "--level", "1"}
	for keep, want := range map[string]string{"nothing": "[sbin/not-ours]", "/mnt/bound": "[mnt/bound/not-ours sbin/not-ours]"} {
		out, err := viver(t, append(args, "--keep", keep)...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if said := strings.Contains(string(out), "/mnt/bound ("); said != (keep == "nothing") || !strings.Contains(string(out), "/srv/memory (tmpfs)") || !strings.Contains(string(out), "/boot/within (") {
			t.Errorf("--keep %s: %s", keep, out)
		}
		list, err := exec.Command("unsquashfs", "-l", filepath.Join(image, "root.squashfs")).Output()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, line := range strings.Fields(string(list)) {
			if strings.HasSuffix(line, "not-ours") {
				got = append(got, strings.TrimPrefix(line, "squashfs-root/"))
			}
		}
		if fmt.Sprint(got) != want {
			t.Errorf("--keep %s: %v, want %s", keep, got, want)
		}
	}
}

// TestCommandLine checks exit codes and that mistakes are explained.
func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--help"}, exitOK, "Exit codes"},
		{[]string{"image", "build", "/nowhere", "-o", "x", "--lib", "/nowhere"}, exitFailed, "part of VIVER is missing"},
		{[]string{"image", "build", "-o", "x"}, exitUsage, "see `viver image build --help`"},
		{[]string{"image", "build", "/", "--no-such-flag"}, exitUsage, "no-such-flag"},
		{[]string{"image", "build", "/", "-o", "x", "--modules", "some"}, exitUsage, "want all or none"},
		{[]string{"image", "verify", "/nowhere"}, exitFailed, "is no image"},
		{[]string{"image", "build", "--help"}, exitOK, "--keep pattern"},
		{[]string{"image", "build", "--help"}, exitOK, "--ipxe-shim file"},
		{[]string{"image", "build", "/", "-o", "x", "--ipxe-shim", "shim.efi"}, exitUsage, "name the iPXE that it starts with --ipxe"},
		{[]string{"image", "verify", "/nowhere", "-o", "xml"}, exitUsage, "want text or json"},
		{[]string{"medium", "write", "/nowhere", "x"}, exitFailed, "no such file"},
		{[]string{"image", "build", "/", "-o", "x", "--piece-length", "100K"}, exitUsage, "want a power of two from 16384 to"},
		{[]string{"medium", "write", "a.iso", "b.iso", "x"}, exitUsage, "a.iso is no image directory"},
		{[]string{"medium", "write", "a.iso", "x", "--data", "8T"}, exitUsage, "is no size, want e.g. 512M or 2G"},
		{[]string{"medium", "write", "--help"}, exitOK, "--data size"},
		{[]string{"imge"}, exitUsage, "imge"},
		{[]string{"image", "bild"}, exitUsage, "did you mean build?"},
		{[]string{"image", "bild", "--level", "3"}, exitUsage, "did you mean build?"},
		{[]string{"image", "paint"}, exitUsage, `unknown command "paint" for "viver image". See`},
		{[]string{"medium", "wrote"}, exitUsage, "did you mean write?"},
		{[]string{"rune", "nwe"}, exitUsage, "did you mean new?"},
		{[]string{"image"}, exitOK, "Available Commands"},
		{[]string{"image", "build", "/", "-o", "x", "--level", "0"}, exitUsage, "levels 1 to 22, not 0"},
		{[]string{"image", "build", "/", "-o", "x", "--level", "23"}, exitUsage, "levels 1 to 22, not 23"},
		{[]string{"image", "build", "/"}, exitUsage, "output"},
		{[]string{"image", "build", "/", "-o", "x", "--onto", "y", "--separate"}, exitUsage, "share blocks"},
		{[]string{"image", "show", "/nowhere"}, exitFailed, "is no image"},
		{[]string{"image", "diff", "/nowhere"}, exitUsage, "see `viver image diff --help`"},
		{[]string{"completion", "bash"}, exitOK, "bash completion"},
	} {
		var out bytes.Buffer
		code := run(context.Background(), environment{args: c.args, stdout: &out, stderr: &out, executable: os.Executable,
			configDir: func() (string, error) { return t.TempDir(), nil }})
		if code != c.code || !strings.Contains(out.String(), c.want) {
			t.Errorf("viver %s: exit code %d, want %d with %q: %.300s", strings.Join(c.args, " "), code, c.code, c.want, out.String())
		}
	}
}

// TestExplain has patterns from the command line and from files, and asks for the reason
// of what is missing.
func TestExplain(t *testing.T) {
	root, lib := tree(t, 1000)
	dir := t.TempDir()
	image, list := filepath.Join(dir, "image"), filepath.Join(dir, "patterns")
	if err := os.WriteFile(list, []byte("# not for a lab\n/usr/share\n/nowhere/*\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := viver(t, "image", "build", root, "-o", image, "--lib", lib, "--level", "1", "--exclude", "noise", "--exclude-from", list, "--keep", "/swapfile").CombinedOutput()
	if err != nil || !bytes.Contains(said, []byte("warning: --exclude /nowhere/* matches no file")) || !bytes.Contains(said, []byte("left out, as --exclude says: 2, ")) {
		t.Fatalf("%v: %s", err, said)
	}
	for args, want := range map[string]string{
		"/usr/share/text":             "# left out, as --exclude says: 1, 21000 bytes\n21000\t/usr/share\n",
		"etc/ssh/":                    "# left out, the identity of one machine: 1, 6 bytes (--keep brings it)\n6\t/etc/ssh/ssh_host_ed25519_key\n",
		"/swapfile":                   "no difference: what the source has there is in the image\n",
		"/etc/fstab":                  "\t/etc/fstab: /dev/sda2 none swap sw 0 0\n",
		"-o json /noise /etc/fstab":   `"name": "noise"`,
		"":                            "/tmp/junk\n",
		"/proc/cpuinfo /etc/hostname": "# left out, made again at every boot: ",
	} {
		out, err := viver(t, append([]string{"image", "explain", image}, strings.Fields(args)...)...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("explain %s: %v, got:\n%s\nwant %q", args, err, out, want)
		}
	}
	for _, args := range [][]string{{dir}, {filepath.Join(dir, "none")}, {image, "-o", "xml"}} {
		if out, err := viver(t, append([]string{"image", "explain"}, args...)...).CombinedOutput(); err == nil {
			t.Errorf("explain %q: %s", args, out)
		}
	}
}

// manifestOf is the manifest of an image.
func manifestOf(t *testing.T, image string) *manifest.Manifest {
	t.Helper()
	s, err := imagedir.Summarize(image)
	if err != nil {
		t.Fatal(err)
	}
	return s.Manifest
}
