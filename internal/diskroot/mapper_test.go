package diskroot

import (
	"bufio"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/testlinux"
)

// The tests in this file need a device mapper. qemu-tests runs them in a guest that has one.

func needsMapper(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can use the device mapper")
	}
	if out, err := exec.Command("dmsetup", "targets").CombinedOutput(); err != nil || !strings.Contains(string(out), "crypt") {
		t.Skipf("no device mapper with the target crypt here: %v: %s", err, out)
	}
}

// crypts makes a LUKS with few iterations and opens it, to be written to.
const crypts = `
export LVM_SUPPRESS_FD_WARNINGS=1 PATH=$PATH:/usr/sbin:/sbin
locked() {
	case $1 in luks2) small="--luks2-metadata-size 16k --luks2-keyslots-size 256k" ;; *) small= ;; esac
	printf secret | cryptsetup luksFormat -q --type $1 $small --pbkdf pbkdf2 --pbkdf-force-iterations 1000 $2 -; printf secret | cryptsetup open --key-file - $2 $3
}
lvm() { command lvm "$@" --devices "$pv" >/dev/null 2>lvm.err || { cat lvm.err >&2; exit 1; }; }
mkdir -p root/etc root/home home; echo 'PRETTY_NAME="Lab 1"' >root/etc/os-release; echo 1 >home/x; echo 2 >root/file
`

// openedDisk makes x by a script, and opens it.
func openedDisk(t *testing.T, script, passphrase string) (dir string, r *Root, err error) {
	t.Helper()
	dir = t.TempDir()
	testlinux.Run(t, "sh", "-ec", "cd "+dir+crypts+script)
	f, err := os.Open(filepath.Join(dir, "x"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	before := digest(t, f)
	t.Cleanup(func() {
		if digest(t, f) != before {
			t.Error("the disk was changed")
		}
	})
	if _, err := Open(t.Context(), f, t.TempDir(), Options{Passphrase: []byte("wrong\n")}); err == nil || !strings.Contains(err.Error(), "the passphrase does not open it") {
		t.Errorf("with a wrong passphrase: %v", err)
	}
	nothingMapped(t)
	r, err = Open(t.Context(), f, t.TempDir(), Options{Passphrase: []byte(passphrase)})
	return dir, r, err
}

// nothingMapped waits until no device of ours is left: the kernel removes it a moment behind the last use,
// which is long in a guest on a busy machine.
func nothingMapped(t *testing.T) {
	t.Helper()
	var left []byte
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		left, _ = exec.Command("dmsetup", "ls").CombinedOutput()
		if !strings.Contains(string(left), "viver-") {
			return
		}
	}
	t.Errorf("left behind:\n%s", left)
}

// has checks the content of files of a Linux, and unmounts it.
func has(t *testing.T, r *Root, want map[string]string) {
	t.Helper()
	err := r.Do(func(dir string) error {
		for name, content := range want {
			if data, err := fs.ReadFile(os.DirFS(dir), name); err != nil || string(data) != content {
				t.Errorf("%s: %q, %v", name, data, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	nothingMapped(t)
}

// LVM in LUKS, with a root in two parts and a /home, as installers encrypt a disk. Another copy of the same
// group is in use on this machine meanwhile, as when the disk is a clone of this machine's.
func TestDeviceMapperLVMInLUKS(t *testing.T) {
	needsMapper(t)
	dir, r, err := openedDisk(t, `
echo '/dev/mapper/lab-home /home ext4 defaults' >root/etc/fstab
truncate -s 24M orig; loop=$(losetup -f --show orig); locked luks2 $loop inside; pv=/dev/mapper/inside
lvm pvcreate -q $pv; lvm vgcreate -q -s 1M lab $pv
lvm lvcreate -y -Wn -Zn -n root -l 6 lab; lvm lvcreate -y -Wn -Zn -n home -l 6 lab; lvm lvextend -l +4 lab/root
mkfs.ext4 -q -d root /dev/mapper/lab-root; mkfs.ext4 -q -d home /dev/mapper/lab-home
sync; cp orig x; echo $loop >loop`, "secret\n")
	if err != nil {
		t.Fatal(err)
	}
	defer testlinux.Run(t, "sh", "-ec", "cd "+dir+crypts+"pv=/dev/mapper/inside; lvm vgchange -an lab; cryptsetup close inside; losetup -d $(cat loop)")
	if r.Kind != "lab/root (ext4, Lab 1)" || len(r.Notes) > 0 {
		t.Errorf("it is %s, notes %q", r.Kind, r.Notes)
	}
	has(t, r, map[string]string{"file": "2\n", "home/x": "1\n"})
}

// LUKS in LVM, beside another LUKS with /home that the crypttab of the root names.
func TestDeviceMapperLUKSInLVM(t *testing.T) {
	needsMapper(t)
	_, r, err := openedDisk(t, `
truncate -s 32M x; printf '%s\n' 'size=18M,type=8e' 'size=12M' | sfdisk -q x
home=$(losetup -f --show -o 19M --sizelimit 12M x); locked luks1 $home home; mkfs.ext4 -q -d home /dev/mapper/home
uuid=$(cryptsetup luksUUID $home); cryptsetup close home; losetup -d $home
echo "sdx2_crypt UUID=$uuid none luks" >root/etc/crypttab; echo '/dev/mapper/sdx2_crypt /home ext4 defaults' >root/etc/fstab
pv=$(losetup -f --show -o 1M --sizelimit 18M x); lvm pvcreate -q $pv; lvm vgcreate -q -s 1M lab $pv; lvm lvcreate -y -Wn -Zn -n secret -l 14 lab
locked luks2 /dev/mapper/lab-secret inside; mkfs.ext4 -q -d root /dev/mapper/inside; cryptsetup close inside; lvm vgchange -an lab; losetup -d $pv`, "secret")
	if err != nil {
		t.Fatal(err)
	}
	if r.Kind != "lab/secret (ext4, Lab 1)" || len(r.Notes) > 0 {
		t.Errorf("it is %s, notes %q", r.Kind, r.Notes)
	}
	has(t, r, map[string]string{"file": "2\n", "home/x": "1\n"})
}

// What is killed leaves no device behind.
func TestDeviceMapperAfterAKill(t *testing.T) {
	needsMapper(t)
	const disk, work = "VIVER_TEST_DISK", "VIVER_TEST_WORK"
	if name := os.Getenv(disk); name != "" {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		r, err := Open(t.Context(), f, os.Getenv(work), Options{Passphrase: []byte("secret")})
		if err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("opened\n")
		_ = r.Do(func(string) error { // until it is killed, or the test ends
			_, err := io.Copy(io.Discard, os.Stdin)
			return err
		})
		return
	}
	dir := t.TempDir()
	testlinux.Run(t, "sh", "-ec", "cd "+dir+crypts+`truncate -s 16M x; locked luks2 x inside; mkfs.ext4 -q -d root /dev/mapper/inside; cryptsetup close inside`)
	cmd := exec.Command("/proc/self/exe", "-test.run", "^TestDeviceMapperAfterAKill$", "-test.v")
	cmd.Env = append(os.Environ(), disk+"="+filepath.Join(dir, "x"), work+"="+t.TempDir())
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said = append(said, lines.Text())
		if lines.Text() == "opened" {
			break
		}
	}
	if list, err := exec.Command("dmsetup", "ls").CombinedOutput(); err != nil || !strings.Contains(string(list), "viver-") {
		t.Errorf("it has no device: %v: %s, %q", err, list, said)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // it was killed
	nothingMapped(t)
}
