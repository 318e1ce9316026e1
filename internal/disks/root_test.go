package disks

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"viver.lan/internal/machine"
	"viver.lan/internal/machine/machinetest"
	"viver.lan/internal/manifest"
)

// inMountNamespace runs the calling test again, as root of a mount namespace
// of its own, so that no mount outlives it. Block devices cannot be mounted in
// a user namespace, so this needs the real root; the same search is tested in
// virtual machines, too.
func inMountNamespace(t *testing.T) bool {
	if os.Getenv("VIVER_TEST_NAMESPACE") == t.Name() {
		// What is mounted here must not spread to where we came from.
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("loop devices and mounts of disk file systems need root")
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skipf("no loop devices here: %v", err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), "VIVER_TEST_NAMESPACE="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
	return false
}

// loop attaches a file to a free loop device for the test's life.
func loop(t *testing.T, path string, readOnly bool) string {
	t.Helper()
	mode := os.O_RDWR
	if readOnly {
		mode = os.O_RDONLY
	}
	file, err := os.OpenFile(path, mode, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer control.Close()
	for range 20 { // another test may take the free one before us
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("/dev/loop%d", n)
		dev, err := os.OpenFile(name, mode, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_SET_FD, int(file.Fd()))
		if err == nil {
			t.Cleanup(func() {
				_ = unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0)
				dev.Close()
			})
			return name
		}
		dev.Close()
	}
	t.Fatal("no free loop device")
	return ""
}

func hash(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// used makes a file system that was in use: with a marker and some files. With
// cut, the image is taken while it is mounted, as a power cut leaves it.
func used(t *testing.T, size int64, fstype, mkfs string, cut bool) string {
	t.Helper()
	path := image(t, size, strings.Fields(mkfs)...)
	dir := t.TempDir()
	dev := loop(t, path, false)
	if err := unix.Mount(dev, dir, fstype, 0, ""); err != nil {
		t.Fatalf("mount %s: %v", fstype, err)
	}
	if err := os.Mkdir(filepath.Join(dir, Marker), 0o755); err != nil {
		t.Fatal(err)
	}
	// The marker must be in place, not in the journal only.
	if err := exec.Command("sync", "-f", dir).Run(); err != nil {
		t.Fatal(err)
	}
	if cut && fstype == "xfs" {
		// Freezing writes the log out to its place.
		_ = exec.Command("xfs_freeze", "-f", dir).Run()
		_ = exec.Command("xfs_freeze", "-u", dir).Run()
	}
	// An open file without a name becomes an orphan when the power goes.
	orphan, err := os.Create(filepath.Join(dir, "orphan"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := orphan.WriteString(strings.Repeat("x", 1<<16)); err != nil {
		t.Fatal(err)
	}
	_ = orphan.Sync()
	_ = os.Remove(orphan.Name())
	for i := range 50 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), []byte("text"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := exec.Command("sync", "-f", dir).Run(); err != nil {
		t.Fatal(err)
	}
	if cut {
		copied := filepath.Join(t.TempDir(), "cut.img")
		run(t, "cp", "--sparse=always", path, copied)
		path = copied
	}
	orphan.Close()
	if err := unix.Unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	return path
}

// realMachine is the real machine with a /sys and /dev of our making, in which
// disks are loop devices.
func realMachine(t *testing.T, disks map[string]string) machine.Host {
	fake := machinetest.New(t, nil)
	for name, dev := range disks {
		addDisk(t, fake, name, dev)
	}
	return machine.Host{Root: fake.Root}
}

func TestRootSearchChangesNoBit(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	orphaned := used(t, 64*mib, "ext4", "mkfs.ext4 -q", true)
	// Replay the journal and nothing else: orphans are left for the driver to
	// free, which it does even when it mounts read-only.
	_ = exec.Command("debugfs", "-w", "-R", "journal_run", orphaned).Run()
	if out := run(t, "dumpe2fs", "-h", orphaned); !strings.Contains(out, "First orphan inode") || strings.Contains(out, "needs_recovery") {
		t.Fatalf("this should have an orphan and a clean journal:\n%s", out)
	}
	images := map[string]string{
		"sda": used(t, 64*mib, "ext4", "mkfs.ext4 -q", false),
		"sdb": used(t, 64*mib, "ext4", "mkfs.ext4 -q", true),
		"sdc": orphaned,
		"sdd": used(t, 320*mib, "xfs", "mkfs.xfs -q", false),
		"sde": used(t, 320*mib, "xfs", "mkfs.xfs -q", true),
		"sdf": used(t, 128*mib, "btrfs", "mkfs.btrfs -q", false),
		"sdg": image(t, 16*mib, "mkfs.ext4", "-q"),
		"sdh": image(t, 16*mib, "mkfs.vfat"),
		"sdi": image(t, 2*mib, "mkswap", "-q"),
	}
	before := make(map[string]string)
	devices := make(map[string]string)
	for name, path := range images {
		before[name] = hash(t, path)
		devices[name] = loop(t, path, false)
	}
	s, err := Search(t.Context(), realMachine(t, devices), filepath.Join(t.TempDir(), "look"), "")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range s.Found {
		names = append(names, f.Device.Name)
		if f.Refusal != "" {
			t.Errorf("%s: %s", f.Device.Name, f.Refusal)
		}
	}
	t.Logf("notes: %q", s.Notes)
	if want := []string{"sda", "sdb", "sdc", "sdd", "sde", "sdf"}; !slices.Equal(names, want) {
		t.Errorf("found markers on %q, want %q", names, want)
	}
	unix.Sync()
	for name, path := range images {
		if after := hash(t, path); after != before[name] {
			t.Errorf("the search changed %s (%s)", name, path)
		}
		// The protection must be gone again.
		f, err := os.OpenFile(devices[name], os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if ro, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKROGET); err != nil || ro != 0 {
			t.Errorf("%s is still write-protected (%d, %v)", name, ro, err)
		}
		f.Close()
	}
}

// TestRootSavedData uses real file systems as an overlay's writable layer, or
// finds that it cannot.
func TestRootSavedData(t *testing.T) {
	if !inMountNamespace(t) {
		return
	}
	for name, tt := range map[string]struct {
		image    func() string
		readOnly bool
		err      string
	}{
		"ext4":          {image: func() string { return used(t, 128*mib, "ext4", "mkfs.ext4 -q", false) }},
		"ext4 cut":      {image: func() string { return used(t, 128*mib, "ext4", "mkfs.ext4 -q", true) }},
		"xfs cut":       {image: func() string { return used(t, 320*mib, "xfs", "mkfs.xfs -q", true) }},
		"btrfs":         {image: func() string { return used(t, 256*mib, "btrfs", "mkfs.btrfs -q", false) }},
		"too small":     {image: func() string { return used(t, 16*mib, "ext4", "mkfs.ext4 -q", false) }, err: "disk is full"},
		"no inodes":     {image: func() string { return used(t, 128*mib, "ext4", "mkfs.ext4 -q -N 200", false) }, err: "inodes are left"},
		"write-protect": {image: func() string { return used(t, 128*mib, "ext4", "mkfs.ext4 -q", false) }, readOnly: true, err: "write-protected"},
	} {
		t.Run(name, func(t *testing.T) {
			m := realMachine(t, map[string]string{"sda": loop(t, tt.image(), tt.readOnly)})
			dir := filepath.Join(t.TempDir(), "saved")
			s, err := Search(t.Context(), m, dir, "")
			if err != nil || len(s.Found) != 1 {
				t.Fatalf("Search = %+v, %v", s, err)
			}
			saved, err := MountSavedData(m, s.Found, manifest.Digest{7}, dir)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = unix.Unmount(dir, 0) })
			lower, root := t.TempDir(), t.TempDir()
			if err := os.WriteFile(filepath.Join(lower, "motd"), []byte("old"), 0o644); err != nil {
				t.Fatal(err)
			}
			data := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", lower, saved.Upper, saved.Work)
			if err := unix.Mount("overlay", root, "overlay", 0, data); err != nil {
				t.Fatal(err)
			}
			err = os.WriteFile(filepath.Join(root, "motd"), []byte("new"), 0o644)
			if uerr := unix.Unmount(root, 0); err != nil || uerr != nil {
				t.Fatal(err, uerr)
			}
			if text, _ := os.ReadFile(filepath.Join(saved.Upper, "motd")); string(text) != "new" {
				t.Errorf("upper layer holds %q", text)
			}
		})
	}
}
