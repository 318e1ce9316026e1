package diskroot

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/testlinux"
)

// openDisk opens x, a disk that a script makes in an empty directory.
func openDisk(t *testing.T, script string) (*Root, error) {
	t.Helper()
	return openDiskWith(t, script, Options{})
}

func openDiskWith(t *testing.T, script string, o Options) (*Root, error) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a disk")
	}
	if out, err := exec.Command("losetup", "-f").CombinedOutput(); err != nil {
		t.Skipf("no loop devices here: %s", out)
	}
	dir := t.TempDir()
	testlinux.Run(t, "sh", "-ec", "cd "+dir+`
export PATH=$PATH:/usr/sbin:/sbin
mkdir -p root/etc root/usr/lib root/home
echo 'PRETTY_NAME="Lab 1"' >root/etc/os-release
`+script)
	disk, err := os.Open(filepath.Join(dir, "x"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disk.Close() })
	r, err := Open(t.Context(), disk, t.TempDir(), o)
	if err == nil {
		t.Cleanup(func() { r.Close() })
	}
	return r, err
}

// An error in a stranger's file system does not stop this machine, even if its superblock says so.
func TestErrorsDoNotStopTheMachine(t *testing.T) {
	r, err := openDisk(t, `truncate -s 8M x; mkfs.ext4 -q -d root x; tune2fs -e panic x >/dev/null`)
	if err != nil {
		t.Fatal(err)
	}
	err = r.Do(func(dir string) error {
		data, err := os.ReadFile("/proc/thread-self/mountinfo")
		for line := range strings.Lines(string(data)) {
			if strings.Contains(line, " "+dir+" ") && strings.Contains(line, "errors=continue") {
				return err
			}
		}
		t.Errorf("mounted:\n%s", data)
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// readsLines checks the lines of a Linux's fstab that cannot be mounted.
func readsLines(t *testing.T, script string, want ...string) {
	t.Helper()
	r, err := openDisk(t, script)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range want {
		if !slices.ContainsFunc(r.Notes, func(note string) bool { return strings.Contains(note, part) }) {
			t.Errorf("notes %q, want %q", r.Notes, part)
		}
	}
}

// An absolute link, as NixOS has, is one in the Linux; what is no regular file holds nobody up.
func TestFilesOfALinux(t *testing.T) {
	const disk = `; truncate -s 8M x; mkfs.ext4 -q -d root x`
	readsLines(t, `mkdir -p root/nix/store; echo 'UUID=7 /srv ext4' >root/nix/store/fstab; ln -s /nix/store/fstab root/etc/fstab`+disk, "/srv is not in the image: UUID=7 is not")
	r, err := openDisk(t, `mv root/etc/os-release root/usr/lib; ln -s /usr/lib/os-release root/etc/os-release`+disk)
	if err != nil || r.Kind != "0 (ext4, Lab 1)" {
		t.Errorf("os-release is an absolute link: %+v, %v", r, err)
	}
	r, err = openDisk(t, `rm root/etc/os-release; mkfifo root/etc/os-release root/etc/fstab`+disk)
	if err != nil || r.Kind != "0 (ext4, a Linux without a name)" || len(r.Notes) > 0 {
		t.Errorf("pipes: %+v, %v", r, err)
	}
}

// With a root by UUID, /dev/sda2 may be of any disk.
func TestDeviceOfAnyDisk(t *testing.T) {
	readsLines(t, `printf '%s\n' 'UUID=1 / ext4' '/dev/sda2 /home ext4' >root/etc/fstab; truncate -s 8M x; mkfs.ext4 -q -d root x`,
		"/home is not in the image: nothing tells whether /dev/sda2 is on this disk; name it by UUID in its fstab")
}

func TestLinkToALinux(t *testing.T) {
	dir := t.TempDir()
	testlinux.Run(t, "sh", "-ec", "cd "+dir+"; mkdir -p root/etc; echo NAME=x >root/etc/os-release; ln -s root link")
	if _, ok := linuxIn(filepath.Join(dir, "root")); !ok {
		t.Error("a Linux is none")
	}
	if _, ok := linuxIn(filepath.Join(dir, "link")); ok {
		t.Error("a link, which could lead anywhere, is a Linux")
	}
}

// Whoever ends a build is not told that the disk has no Linux.
func TestSearchEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := &Root{root: filepath.Join(t.TempDir(), rootDir)}
	if err := r.open(ctx, []volume{{fsType: "ext4"}}, filepath.Dir(r.root), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// The subvolumes of one btrfs are mounted from one device: the kernel may refuse to have it on two.
func TestOneDevicePerVolume(t *testing.T) {
	r, err := openDisk(t, `
mkdir m
truncate -s 120M x; mkfs.btrfs -q -U 11111111-2222-3333-4444-777777777777 x
echo 'UUID=11111111-2222-3333-4444-777777777777 /home btrfs subvol=@home' >root/etc/fstab
unshare -m sh -ec 'mount -o loop x m; btrfs -q subvolume create m/@; btrfs -q subvolume create m/@home; cp -a root/. m/@; umount m'`)
	if err != nil || len(r.Notes) > 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	err = r.Do(func(dir string) error {
		data, err := os.ReadFile("/proc/thread-self/mountinfo")
		devices := map[string]bool{}
		for line := range strings.Lines(string(data)) {
			if _, after, ok := strings.Cut(line, " - btrfs "); ok && strings.Contains(line, dir) {
				devices[strings.Fields(after)[0]] = true
			}
		}
		if len(devices) != 1 {
			t.Errorf("devices %v of\n%s", devices, data)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
