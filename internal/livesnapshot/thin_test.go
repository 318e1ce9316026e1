package livesnapshot

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/testlinux"
)

// A root on a thin volume with a /home on another, and a file system that has no snapshots. What is written later is not
// in the snapshot; the snapshots are gone behind it, and so is that of a build that was killed. qemu-tests runs this in a
// guest that has a device mapper.
func TestDeviceMapperThinSnapshot(t *testing.T) {
	if out, err := exec.Command("dmsetup", "targets").CombinedOutput(); os.Geteuid() != 0 || err != nil || !strings.Contains(string(out), "thin") {
		t.Skipf("no device mapper with thin volumes here: %v: %s", err, out)
	}
	dir := t.TempDir()
	const script = `export LVM_SUPPRESS_FD_WARNINGS=1 PATH=$PATH:/usr/sbin:/sbin
`
	testlinux.Run(t, "sh", "-ec", "cd "+dir+"\n"+script+`
truncate -s 128M x; loop=$(losetup -f --show x); echo $loop >loop; vgcreate -q labthin $loop >/dev/null
lvcreate -q -y -L 64M --type thin-pool -n pool labthin; lvcreate -q -y -V 32M --thinpool pool -n root labthin; lvcreate -q -y -V 32M --thinpool pool -n home labthin
lvcreate -q -y -s -n viver-snapshot-999999999-0 labthin/root
mkfs.ext4 -q /dev/labthin/root; mkfs.ext4 -q /dev/labthin/home; mkdir root; mount /dev/mapper/labthin-root root; mkdir root/home root/live; mount /dev/mapper/labthin-home root/home; mount -t tmpfs none root/live
echo before >root/file; echo before >root/home/x; echo before >root/live/x`)
	t.Cleanup(func() {
		testlinux.Run(t, "sh", "-ec", "cd "+dir+"\n"+script+"umount root/live root/home root; vgremove -q -y labthin; losetup -d $(cat loop)")
	})
	root := filepath.Join(dir, "root")
	s, err := Open(t.Context(), root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Notes) > 0 {
		t.Errorf("notes %q", s.Notes)
	}
	for _, name := range []string{"file", "home/x", "live/x"} {
		if err := os.WriteFile(filepath.Join(root, name), []byte("after\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	err = s.Do(func(dir string) error {
		for name, want := range map[string]string{"file": "before\n", "home/x": "before\n", "live/x": "after\n"} {
			if data, err := fs.ReadFile(os.DirFS(dir), name); err != nil || string(data) != want {
				t.Errorf("%s: %q, %v", name, data, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if left, err := exec.Command("lvs", "--noheadings", "--options", "lv_name", "labthin").Output(); err != nil || strings.Contains(string(left), thinPrefix) {
		t.Errorf("left behind: %s%v", left, err)
	}
}

func TestThinProcess(t *testing.T) {
	for name, want := range map[string]int{"viver-snapshot-17-0": 17, "viver-snapshot-17": 17, "viver-snapshot--1": 0, "viver-snapshot-x": 0, "root": 0} {
		if got, ok := thinProcess(name); got != want || ok != (want > 0) {
			t.Errorf("%s: %d, %v", name, got, ok)
		}
	}
}
