package imagesource

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"viver.lan/internal/mountinfo"
	"viver.lan/internal/testlinux"
)

// A disk of this machine that is mounted is named by where it is.
func TestMountedDevice(t *testing.T) {
	list, err := mountinfo.List()
	if err != nil {
		t.Fatal(err)
	}
	tried := false
	for _, m := range list {
		if fi, err := os.Stat(m.Source); err != nil || fi.Mode()&os.ModeDevice == 0 {
			continue
		}
		tried = true
		if _, err := Open(context.Background(), m.Source, Options{}); err == nil || !strings.Contains(err.Error(), "in use, mounted at") {
			t.Errorf("%s: %v", m.Source, err)
		}
	}
	if !tried {
		t.Skip("no disk is mounted here")
	}
}

// loop makes a block device of a file.
func loop(t *testing.T, file string) string {
	t.Helper()
	device := strings.TrimSpace(testlinux.Run(t, "losetup", "-f", "--show", file))
	t.Cleanup(func() { testlinux.Run(t, "losetup", "-d", device) })
	return device
}

// A mount of a btrfs does not say its device by number, and of several only one by name.
func TestMountedBtrfs(t *testing.T) {
	needsLoop(t)
	const mib = 1 << 20
	dir := t.TempDir()
	var devices []string
	for _, name := range []string{"a", "b"} {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(name, 120*mib); err != nil {
			t.Fatal(err)
		}
		devices = append(devices, loop(t, name))
	}
	testlinux.Run(t, "mkfs.btrfs", append([]string{"-q"}, devices...)...)
	point := t.TempDir()
	if err := unix.Mount(devices[0], point, "btrfs", 0, "device="+devices[1]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(point, 0); err != nil {
			t.Error(err)
		}
	})
	for i, want := range []string{"in use, mounted at " + point, "in use, a part of a btrfs that is mounted"} {
		if _, err := Open(t.Context(), devices[i], Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("device %d: %v, want %q", i+1, err, want)
		}
	}
}

// What is mounted may be made of a partition by way of several devices.
func TestDeviceMadeOfOthers(t *testing.T) {
	sys := t.TempDir()
	for _, dir := range []string{"sda/sda1", "sda/sda2", "dm-0/" + madeOf, "dm-1/" + madeOf} {
		if err := os.MkdirAll(filepath.Join(sys, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"dm-0/" + madeOf + "/sda2": "../../sda/sda2", "dm-1/" + madeOf + "/dm-0": "../../dm-0"} {
		if err := os.Symlink(to, filepath.Join(sys, link)); err != nil {
			t.Fatal(err)
		}
	}
	for ours, want := range map[string]bool{"sda": true, "sda/sda1": false, "sda/sda2": true, "dm-0": true, "dm-1": true} {
		if got := uses(filepath.Join(sys, "dm-1"), filepath.Join(sys, ours)); got != want {
			t.Errorf("%s: %v", ours, got)
		}
	}
}
