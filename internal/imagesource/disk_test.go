package imagesource

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/mountinfo"
	"viver.lan/internal/testlinux"
)

// needsLoop skips a test where no disk can be mounted.
func needsLoop(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a disk")
	}
	if out, err := exec.Command("losetup", "-f").CombinedOutput(); err != nil {
		t.Skipf("no loop devices here: %s", out)
	}
}

// scripts that make x, a disk, of the directories root and home. MOUNTED runs what follows with the
// file system in x mounted at m, and nobody else sees that.
const preamble = `
export PATH=$PATH:/usr/sbin:/sbin
mkdir -p root/etc root/home root/boot home/ann m
echo 'PRETTY_NAME="Lab 1"' >root/etc/os-release
echo one >root/file
echo letter >home/ann/letter
MOUNTED() { unshare -m sh -ec 'mount -o loop x m; '"$1"'; umount m'; }
`

// makeDisk runs a script in an empty directory and returns the path of x.
func makeDisk(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	testlinux.Run(t, "sh", "-ec", "cd "+dir+preamble+script)
	return filepath.Join(dir, "x")
}

const (
	wholeExt4 = `truncate -s 8M x; mkfs.ext4 -q -d root -L labroot x`
	// A root by UUID, and a home by what is put for HOME.
	gptDisk = `
truncate -s 32M x
printf '%s\n' 'label: gpt' 'size=4M, type=U' 'size=12M, type=L' 'size=8M, type=L, name="lab home"' | sfdisk -q x
mkfs.vfat -F 12 --offset 2048 x 4096 >/dev/null
mkfs.ext4 -q -d home -L labhome -U 11111111-2222-3333-4444-555555555555 -E offset=17825792 x 8M
PARTUUID=$(partx -g -o UUID -n 3 x)
printf '%s\n' 'UUID=0 / ext4 defaults 0 1' 'proc /proc proc defaults 0 0' 'HOME /home ext4 defaults 0 2' "UUID=7 /srv xfs defaults 0 2" | sed "s/PARTUUIDHERE/$PARTUUID/" >root/etc/fstab
mkfs.ext4 -q -d root -E offset=5242880 x 12M
`
	mbrDisk = `
truncate -s 40M x
printf '%s\n' 'label: dos' 'x1: start=1M, size=4M, type=83' 'x2: size=30M, type=5' 'x5: size=10M, type=83' 'x6: size=10M, type=83' | sfdisk -q x
printf '%s\n' '/dev/sda5 / ext4 defaults 0 1' '/dev/sda6 /home ext4 defaults 0 2' '/dev/sdb6 /boot ext4 defaults 0 2' >root/etc/fstab
at() { echo $(($(partx -g -o START -n $1 x) * 512)); }
mkfs.ext4 -q -d root -E offset=$(at 5) x 10M
mkfs.ext4 -q -d home -E offset=$(at 6) x 10M
`
	btrfsDisk = `
truncate -s 120M x; mkfs.btrfs -q -U 11111111-2222-3333-4444-666666666666 x
echo 'UUID=11111111-2222-3333-4444-666666666666 / btrfs subvol=@ 0 0
UUID=11111111-2222-3333-4444-666666666666 /home btrfs noatime,subvol=/@home 0 0' >root/etc/fstab
MOUNTED 'btrfs -q subvolume create m/@; btrfs -q subvolume create m/@home; cp -a root/. m/@; cp -a home/. m/@home'
`
)

func sum(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

// A disk is read with what its own fstab puts in it, is the same afterwards, and nothing of
// it stays mounted.
func TestDisk(t *testing.T) {
	needsLoop(t)
	home := func(by string) string { return strings.Replace(gptDisk, "HOME", by, 1) }
	for name, c := range map[string]struct {
		script, kind string
		withHome     bool
	}{
		"ext4":                        {wholeExt4, `an ext2, ext3 or ext4 file system: 0 (ext4 "labroot", Lab 1)`, false},
		"xfs":                         {`truncate -s 300M x; mkfs.xfs -q x; MOUNTED 'cp -a root/. m'`, `an XFS file system: 0 (xfs, Lab 1)`, false},
		"squashfs":                    {`mksquashfs root x -quiet -no-progress`, `a squashfs file system: 0 (squashfs, Lab 1)`, false},
		"btrfs":                       {btrfsDisk, `a btrfs file system: 0:@ (btrfs, Lab 1)`, true},
		"GPT, home by UUID":           {home("UUID=11111111-2222-3333-4444-555555555555"), `a disk with a GPT: partition 2 (ext4, Lab 1)`, true},
		"GPT, home by label":          {home("LABEL=labhome"), `a disk with a GPT: partition 2 (ext4, Lab 1)`, true},
		"GPT, home by PARTUUID":       {home("PARTUUID=PARTUUIDHERE"), `a disk with a GPT: partition 2 (ext4, Lab 1)`, true},
		"GPT, home by partition name": {home(`/dev/disk/by-partlabel/lab\x20home`), `a disk with a GPT: partition 2 (ext4, Lab 1)`, true},
		"MBR, logical partitions":     {mbrDisk, `a disk with an MBR: partition 5 (ext4, Lab 1)`, true},
		"qcow2":                       {wholeExt4 + `; qemu-img convert -O qcow2 x y; mv y x`, `an ext2, ext3 or ext4 file system in a qcow2 disk: 0 (`, false},
		"vmdk":                        {wholeExt4 + `; qemu-img convert -O vmdk x y; mv y x`, `an ext2, ext3 or ext4 file system in a VMDK disk: 0 (`, false},
		"vdi":                         {wholeExt4 + `; qemu-img convert -O vdi x y; mv y x`, `an ext2, ext3 or ext4 file system in a VDI disk: 0 (`, false},
		"vhdx":                        {wholeExt4 + `; qemu-img convert -O vhdx x y; mv y x`, `an ext2, ext3 or ext4 file system in a VHDX disk: 0 (`, false},
		"qcow2, compressed":           {wholeExt4 + `; qemu-img convert -O qcow2 x y; zstd -q y -f -o x`, `an ext2, ext3 or ext4 file system in a qcow2 disk, compressed with zstd: 0 (`, false},
	} {
		disk := makeDisk(t, c.script)
		before := sum(t, disk)
		lines, kind := listing(t, disk, Options{})
		if !strings.HasPrefix(kind, c.kind) {
			t.Errorf("%s is %q, want %q", name, kind, c.kind)
		}
		if text := strings.Join(lines, "\n"); !strings.Contains(text, `0644 file "one\n"`) || strings.Contains(text, `home/ann/letter "letter\n"`) != c.withHome {
			t.Errorf("%s has\n%s", name, text)
		}
		if after := sum(t, disk); after != before {
			t.Errorf("%s: the disk has changed", name)
		}
		nothingLeft(t, disk)
	}
}

// nothingLeft looks for loop devices of a disk and mounts.
func nothingLeft(t *testing.T, disk string) {
	t.Helper()
	if out := testlinux.Run(t, "losetup", "-a"); strings.Contains(out, disk) {
		t.Errorf("left: %s", out)
	}
	list, err := mountinfo.List()
	if err != nil || slices.ContainsFunc(list, func(m mountinfo.Mount) bool { return m.Source == "viver" }) {
		t.Errorf("mounted: %+v, %v", list, err)
	}
}

// What is in the journal of a disk that was in use is not replayed, and that is said.
func TestDiskInUse(t *testing.T) {
	needsLoop(t)
	disk := makeDisk(t, wholeExt4+`; MOUNTED 'echo more >m/more; sync; cp --sparse=always x y'; mv y x`)
	before := sum(t, disk)
	s, err := Open(t.Context(), disk, Options{Work: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if len(s.Notes) != 1 || !strings.Contains(s.Notes[0], "not shut down cleanly") {
		t.Errorf("notes %q", s.Notes)
	}
	if sum(t, disk) != before {
		t.Error("the journal was replayed")
	}
}

func TestSeveralRoots(t *testing.T) {
	needsLoop(t)
	disk := makeDisk(t, strings.Replace(gptDisk, "HOME", "UUID=5", 1)+`
echo 'PRETTY_NAME="Lab 2"' >root/etc/os-release
echo two >root/file
mkfs.ext4 -q -d root -E offset=17825792 x 8M`)
	for root, want := range map[string]string{"": "choose one with --root:\n  - 2 (ext4, Lab 1)\n  - 3 (ext4, Lab 2)", "1": "no installed Linux --root 1; there are:\n  - 2 (ext4, Lab 1)"} {
		if _, err := Open(t.Context(), disk, Options{Root: root, Work: t.TempDir()}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("--root %q: %v, want %q", root, err, want)
		}
	}
	lines, _ := listing(t, disk, Options{Root: "3"})
	if !slices.Contains(lines, `0644 file "two\n"`) {
		t.Errorf("--root 3: %q", lines)
	}
	subvolumes := makeDisk(t, btrfsDisk+`MOUNTED 'btrfs -q subvolume snapshot m/@ m/old; echo old >m/old/file'`)
	if _, err := Open(t.Context(), subvolumes, Options{Work: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "choose one with --root:\n  - 0:@ (btrfs, Lab 1)\n  - 0:old (btrfs, Lab 1)") {
		t.Errorf("subvolumes: %v", err)
	}
	lines, _ = listing(t, subvolumes, Options{Root: "0:old"})
	if !slices.Contains(lines, `0644 file "old\n"`) {
		t.Errorf("--root 0:old: %q", lines)
	}
}

func TestDisksWithoutALinux(t *testing.T) {
	needsLoop(t)
	const windows = `truncate -s 8M x; printf '%s\n' '1M,4M,7' | sfdisk -q x; truncate -s 4M w; mkntfs -q -F w >/dev/null; dd if=w of=x bs=1M seek=1 conv=notrunc status=none`
	cutOff := func(format string) string {
		return `head -c 3M /dev/urandom >root/noise; ` + wholeExt4 + `; qemu-img convert -O ` + format + ` x y; truncate -s 1M y; mv y x`
	}
	for script, want := range map[string]string{
		`truncate -s 8M x; echo label: gpt | sfdisk -q x`: "it is a disk with a GPT: its partition table is empty",
		windows:                            "\n  - partition 1: ntfs, of Windows",
		`truncate -s 8M x; mkfs.ext4 -q x`: "no installed Linux is on it",
		`truncate -s 32M x; echo a | cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 x -`:          "crypto_LUKS, encrypted; its passphrase opens it, in a file: --passphrase-file FILE",
		`truncate -s 8M x; mkfs.ext4 -q -d root x; dd if=/dev/zero of=x bs=1k seek=2 count=200 conv=notrunc status=none`: "mount ext4",
		wholeExt4 + `; qemu-img convert -O qcow2 x base; qemu-img create -q -f qcow2 -b base -F qcow2 y; mv y x`:         `it needs the file "base"`,
		`qemu-img create -q -f qcow2 -u -b /etc/shadow -F raw x 4M`:                                                      `it needs the file "/etc/shadow"`,
		`qemu-img create -q -f qcow2 -o data_file=d,data_file_raw=on x 4M`:                                               "it is a qcow2 disk",
		`qemu-img create -q -f vmdk -o subformat=monolithicFlat x 4M`:                                                    "it is a VMDK disk",
		cutOff("qcow2"): "it is a qcow2 disk that is damaged or was cut off",
		wholeExt4 + `; qemu-img convert -O qcow2 x y; dd if=/dev/urandom of=y bs=64k seek=1 count=2 conv=notrunc status=none; mv y x`: "it is a qcow2 disk that is damaged or was cut off",
		cutOff("vmdk"): "it is a VMDK disk that is damaged or was cut off",
		cutOff("vdi"):  "it is a VDI disk that is damaged or was cut off: it has",
		cutOff("vhdx"): "it is a VHDX disk: qemu-img",
	} {
		disk := makeDisk(t, script)
		s, err := Open(t.Context(), disk, Options{Work: t.TempDir()})
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n%v, want %q", script, err, want)
		}
		nothingLeft(t, disk)
	}
}

// A stranger's disk cannot have its file systems mounted over directories of this machine.
func TestMountPointThatLeadsOut(t *testing.T) {
	needsLoop(t)
	outside := t.TempDir()
	disk := makeDisk(t, `rmdir root/home; ln -s `+outside+` root/home`+strings.Replace(gptDisk, "HOME", "LABEL=labhome", 1))
	s, err := Open(t.Context(), disk, Options{Work: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if !slices.ContainsFunc(s.Notes, func(n string) bool {
		return strings.Contains(n, "/home is not in the image: the root has no such directory")
	}) {
		t.Errorf("notes %q", s.Notes)
	}
	if !slices.ContainsFunc(s.Notes, func(n string) bool {
		return strings.Contains(n, "/srv is not in the image: UUID=7 is not on this disk")
	}) {
		t.Errorf("notes %q", s.Notes)
	}
}

// What of a disk is zeros is not counted.
func TestTakeMap(t *testing.T) {
	const said = `[{ "start": 0, "length": 5, "zero": false, "data": true}, {"length": 700, "zero": true, "data": true}, {"length": 900, "zero": true, "data": false},
{ "length": 2, "zero": false, "data": true, "offset": 4}]`
	for room, want := range map[allowance]error{7: nil, 6: errBomb} {
		if err := takeMap(strings.NewReader(said), &room); !errors.Is(err, want) {
			t.Errorf("%d left: %v, want %v", room, err, want)
		}
	}
}

func FuzzTakeMap(f *testing.F) {
	f.Add([]byte(`[{"length":5,"data":true}]`))
	f.Fuzz(func(t *testing.T, out []byte) {
		room := allow(0)
		if _ = takeMap(bytes.NewReader(out), room); *room < 0 || *room > freeRatio {
			t.Errorf("%d bytes left", *room)
		}
	})
}

func FuzzInfo(f *testing.F) {
	f.Add([]byte(`{"virtual-size":1,"format-specific":{"data":{"extents":[{"filename":"/dev/fd/3"}]}}}`))
	f.Fuzz(func(t *testing.T, out []byte) {
		if size, err := parseInfo(out, "x"); err == nil && size < 0 {
			t.Errorf("%d bytes", size)
		}
		if end := vdiEnd(out); end < 0 {
			t.Errorf("it ends at %d", end)
		}
	})
}
