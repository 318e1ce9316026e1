package diskroot

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/testlinux"
)

// lvm makes the group lab on a loop device, as LVM does without a device mapper, and has put NAME FILE write
// a file system to where a logical volume begins.
const lvm = `
export LVM_SUPPRESS_FD_WARNINGS=1
lvm() { command lvm "$@" --driverloaded n --devices "$loop" >/dev/null 2>lvm.err || { cat lvm.err >&2; exit 1; }; }
on() { loop=$(losetup -f --show "$@"); trap 'losetup -d $loop' EXIT; }
make() { lvm lvcreate -an -Zn -Wn --autobackup n -n $1 -l $2 $group; }
extent() { # of a group with extents of 1 MiB, the first of which is at 1 MiB
	dd if=$3 of=$loop bs=1M seek=$((1 + $1)) skip=${4:-0} count=$2 conv=notrunc status=none
}
group=lab
`

func digest(t *testing.T, f *os.File) [sha256.Size]byte {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<40)); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// A root, a /home and swap in a volume group behind a /boot of its own, as installers make them; the disk is the same
// behind it, and nothing of the group is activated.
func TestRootOnLVM(t *testing.T) {
	testlinux.Tool(t, "lvm")
	r, err := openDisk(t, lvm+`
mkdir -p boot home/anna; echo kernel >boot/vmlinuz; echo 1 >home/anna/x; mkdir root/boot
truncate -s 8M boot.fs; mkfs.ext2 -q -d boot boot.fs
echo '/dev/mapper/la--b-ho--me /home ext4 defaults
/dev/sda1 /boot ext2 defaults
/dev/la-b/root / ext4 defaults' >root/etc/fstab
truncate -s 8M home.fs; mkfs.ext4 -q -d home home.fs
truncate -s 16M root.fs; mkfs.ext4 -q -d root root.fs
truncate -s 64M x; echo 'size=8M,type=83
type=8e' | sfdisk -q x
dd if=boot.fs of=x bs=1M seek=1 conv=notrunc status=none
on -o 9M x; group=la-b
lvm pvcreate -q $loop; lvm vgcreate -q --autobackup n -s 1M la-b $loop
make swap 4; make ho-me 8; make root 16
extent 4 8 home.fs; extent 12 16 root.fs
`)
	if err != nil {
		t.Fatal(err)
	}
	want := "warning: what /etc/fstab puts at /boot is not in the image: nothing tells whether /dev/sda1 is on this disk; name it by UUID in its fstab"
	if r.Kind != "la-b/root (ext4, Lab 1)" || !slices.Equal(r.Notes, []string{want}) {
		t.Errorf("it is %s, notes %q", r.Kind, r.Notes)
	}
	err = r.Do(func(dir string) error {
		_, err := os.Stat(filepath.Join(dir, "home/anna/x"))
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob("/dev/mapper/*-root"); len(left) > 0 {
		t.Errorf("it was activated: %v", left)
	}
}

// What of a group cannot be read says so.
func TestPartsOfLVM(t *testing.T) {
	testlinux.Tool(t, "lvm")
	for name, c := range map[string]struct{ script, want string }{
		"cut off":        {`make a 4; make root 40; losetup -d $loop; trap - EXIT; truncate -s 20M x`, "logical volume lab/root: LVM2_member was cut off: it has 20971520 bytes, and the logical volume goes up to"},
		"damaged header": {`make root 16; dd if=/dev/zero of=$loop bs=1k seek=4 count=900 conv=notrunc status=none`, "LVM2_member"},
	} {
		_, err := openDisk(t, lvm+"truncate -s 64M x; on x; lvm pvcreate -q $loop; lvm vgcreate -q --autobackup n -s 1M lab $loop\n"+c.script)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		t.Logf("%s: %v", name, err)
	}
}

// Segments that follow each other are one stretch; others are made one by the device mapper, read-only and removed
// when nobody uses it any more.
func TestSegmentsOfALogicalVolume(t *testing.T) {
	group, err := parseGroup([]byte(groupText))
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can make loop devices")
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(100 << 20); err != nil {
		t.Fatal(err)
	}
	var lines []string
	var table string
	missing := errors.New("no device mapper")
	d := newDisk()
	defer d.close()
	s := &stack{disk: d, run: func(_ context.Context, files []*os.File, name string, args ...string) ([]byte, error) {
		lines = append(lines, name+" "+strings.Join(args, " "))
		if len(files) > 0 {
			data, err := io.ReadAll(io.NewSectionReader(files[0], 0, 1000))
			table = string(data)
			return nil, err
		}
		return nil, missing
	}}
	s.volumes = []volume{{stretch: stretch{file, 1 << 20, 90 << 20}, fsType: typeLVM, uuid: "PV-0"}}
	if got, err := s.join(t.Context(), group, group.logical["one"]); err != nil || got != (stretch{file, 1<<20 + 1<<20 + 3*4<<20, 3 * 4 << 20}) {
		t.Errorf("one: %+v, %v", got, err)
	}
	if _, err := s.join(t.Context(), group, group.logical["two"]); !errors.Is(err, missing) && !errors.Is(err, os.ErrNotExist) {
		t.Errorf("two: %v", err)
	}
	device := func(offset, size int64) string { return d.loops[stretch{file, offset, size}].Path }
	if want := "0 8192 linear " + device(2<<20, 4<<20) + " 0\n8192 8192 linear " + device(2<<20+8<<20, 4<<20) + " 0\n"; table != want {
		t.Errorf("table:\n%swant:\n%s", table, want)
	}
	if len(lines) != 2 || !strings.HasSuffix(lines[0], " --readonly /dev/fd/3") || !strings.HasPrefix(lines[1], "dmsetup remove --deferred viver-") {
		t.Errorf("lines %q", lines)
	}
	for lv, want := range map[string]string{"thin": "of the kind thin; activate it (vgchange -ay lab)", "far": "on a physical volume that is not here, PV-1", "long": "was cut off", "gap": "was cut off"} {
		if _, err := s.join(t.Context(), group, group.logical[lv]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", lv, err, want)
		}
	}
	if group.logical["hidden"] != nil {
		t.Error("what LVM hides is shown")
	}
}

// groupText is the metadata of a group with logical volumes of several kinds, as pvck prints it.
const groupText = `  metadata text at 10752 crc 0x57d08ee # vgname lab seqno 5
  ---
lab {
id = "VG"
seqno = 5 # a comment with "quotes" and {
status = ["RESIZEABLE", "READ", "WRITE"]
flags = []
extent_size = 8192
physical_volumes {
pv0 {
id = "PV-0"
pe_start = 2048
}
pv1 {
id = "PV-1"
pe_start = 2048
}
}
logical_volumes {
one { id = "1" status = ["READ", "VISIBLE"] segment_count = 2
segment1 { start_extent = 0 extent_count = 1 type = "striped" stripe_count = 1 stripes = [ "pv0", 3 ] }
segment2 { start_extent = 1 extent_count = 2 type = "striped" stripe_count = 1 stripes = [ "pv0", 4 ] }
}
two { status = ["VISIBLE"] segment_count = 2
segment1 { start_extent = 0 extent_count = 1 type = "striped" stripe_count = 1 stripes = ["pv0", 0] }
segment2 { start_extent = 1 extent_count = 1 type = "striped" stripe_count = 1 stripes = ["pv0", 2] }
}
thin { status = ["VISIBLE"] segment_count = 1 segment1 { start_extent = 0 extent_count = 1 type = "thin" } }
far { status = ["VISIBLE"] segment_count = 1 segment1 { start_extent = 0 extent_count = 1 type = "striped" stripe_count = 1 stripes = ["pv1", 0] } }
long { status = ["VISIBLE"] segment_count = 1 segment1 { start_extent = 0 extent_count = 99 type = "striped" stripe_count = 1 stripes = ["pv0", 0] } }
gap { status = ["VISIBLE"] segment_count = 1 segment1 { start_extent = 1 extent_count = 1 type = "striped" stripe_count = 1 stripes = ["pv0", 0] } }
hidden { status = ["READ"] segment_count = 0 }
}
}
contents = "Text Format Volume Group"
  ---
`

func FuzzParseGroup(f *testing.F) {
	f.Add([]byte(groupText))
	f.Add([]byte("\n  ---\nx { id = \"1\" extent_size = 99999999999999999999 }\n  ---\n"))
	f.Fuzz(func(_ *testing.T, out []byte) {
		if g, err := parseGroup(out); err == nil {
			s := &stack{disk: newDisk(), run: func(context.Context, []*os.File, string, ...string) ([]byte, error) { return nil, errors.New("none") }}
			for _, segments := range g.logical {
				_, _ = s.join(context.Background(), g, segments)
			}
		}
	})
}

// superblock is that of a mirror, version 1.2 (kernel, include/uapi/linux/raid/md_p.h), of disk role of two.
func superblock(offset, size int64, level uint32, role uint16, events uint64) []byte {
	b := make([]byte, 256+2*2)
	le := binary.LittleEndian
	le.PutUint32(b[0:], 0xa92b4efc)
	le.PutUint32(b[4:], 1)
	copy(b[16:], "0123456789abcdef") // of the array
	copy(b[32:], "host:lab")
	le.PutUint32(b[72:], level)
	le.PutUint64(b[80:], uint64(size/sector)) // what of each disk is used
	le.PutUint32(b[92:], 2)
	le.PutUint64(b[128:], uint64(offset/sector))
	le.PutUint64(b[136:], uint64(size/sector))
	le.PutUint64(b[144:], 8)
	le.PutUint32(b[160:], uint32(role))
	copy(b[168:], "fedcba9876543210")
	le.PutUint64(b[192:], 1796068734)
	le.PutUint64(b[200:], events)
	le.PutUint32(b[220:], 2)
	le.PutUint16(b[258:], 1)
	if role == 0xffff {
		le.PutUint16(b[256:], role)
	}
	var sum uint64
	for i := 0; i+4 <= len(b); i += 4 {
		sum += uint64(le.Uint32(b[i:]))
	}
	le.PutUint32(b[216:], uint32(sum)+uint32(sum>>32))
	return b
}

// withMirror lays a superblock and what the mirror holds into a file.
func withMirror(t *testing.T, name string, at int64, block []byte, data string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	content, err := os.ReadFile(data)
	if err == nil {
		_, err = f.WriteAt(content, at+2<<20)
	}
	if _, err2 := f.WriteAt(block, at+4096); err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
}

// One disk of a mirror is enough, and the group of LVM in it is found. mdadm itself reads the superblock.
func TestRootOnAMirror(t *testing.T) {
	testlinux.Tool(t, "mdadm")
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a disk")
	}
	dir := t.TempDir()
	testlinux.Run(t, "sh", "-ec", "cd "+dir+`; mkdir -p root/etc; echo PRETTY_NAME=Lab >root/etc/os-release; echo '/dev/md/lab / ext4 defaults' >root/etc/fstab
truncate -s 4M root.fs; mkfs.ext4 -q -d root root.fs; truncate -s 8M x spare raid5 short`)
	at := func(name string) string { return filepath.Join(dir, name) }
	withMirror(t, at("x"), 0, superblock(2<<20, 4<<20, 1, 0, 17), at("root.fs"))
	withMirror(t, at("spare"), 0, superblock(2<<20, 4<<20, 1, 0xffff, 17), at("root.fs"))
	withMirror(t, at("raid5"), 0, superblock(2<<20, 4<<20, 5, 0, 17), at("root.fs"))
	withMirror(t, at("short"), 0, superblock(2<<20, 64<<20, 1, 0, 17), at("root.fs"))
	open := func(name string) (*Root, error) {
		f, err := os.Open(at(name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		before := digest(t, f)
		r, err := Open(t.Context(), f, t.TempDir(), Options{})
		if err == nil {
			err = r.Close()
		}
		if digest(t, f) != before {
			t.Errorf("%s was changed", name)
		}
		return r, err
	}
	r, err := open("x")
	if err != nil {
		t.Fatal(err)
	}
	if r.Kind != "0 (ext4, Lab)" || len(r.Notes) != 1 || !strings.Contains(r.Notes[0], `is one disk of a mirror (RAID1) of 2, "host:lab"; it is read as it was at its last change, `) {
		t.Errorf("it is %s, notes %q", r.Kind, r.Notes)
	}
	for name, want := range map[string]string{
		"spare": "it is a spare disk of a mirror", "raid5": "one of 2 disks of a RAID of the kind raid5", "short": "it was cut off: the mirror has 67108864 bytes, the disk 8388608",
	} {
		if _, err := open(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
}

func FuzzParseMember(f *testing.F) {
	f.Add([]byte("        Version : 1.2\n    Feature Map : 0x1\n     Array UUID : a:b\n     Raid Level : raid1\n   Raid Devices : 2\n     Array Size : 100352 KiB (98.00 MiB)\n    Data Offset : 4096 sectors\n         Events : 0.17\n"))
	f.Fuzz(func(t *testing.T, out []byte) {
		m, err := parseMember(out)
		const disk = 1 << 30
		if err == nil && m.isReadable(disk) == nil && (m.offset < 0 || m.size <= 0 || m.offset+m.size > disk) {
			t.Errorf("%+v", m)
		}
	})
}

// exits makes an error of a program that ended with a code.
func exits(t *testing.T, code string) error {
	t.Helper()
	return exec.Command("sh", "-c", "exit "+code).Run()
}

// What cryptsetup is asked, and what becomes of its answers. It opens nothing here: qemu-tests has a kernel that can.
func TestCommandsForLUKS(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can make loop devices")
	}
	file, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	locked := volume{stretch: stretch{file, 0, 1 << 20}, number: 3, fsType: typeLUKS, uuid: "L"}
	for _, c := range []struct {
		given   string
		answers []string // exit codes
		keys    []string
		want    string
	}{
		{"secret\n", []string{"2", "2"}, []string{"secret", "secret\n"}, "partition 3: crypto_LUKS: the passphrase does not open it"},
		{"secret", []string{"2"}, []string{"secret"}, "the passphrase does not open it"},
		{"se\ncret\r\n", []string{"4"}, []string{"se\ncret"}, "exit status 4"},
	} {
		var keys []string
		d := newDisk()
		s := &stack{disk: d, passphrase: []byte(c.given), run: func(_ context.Context, files []*os.File, name string, args ...string) ([]byte, error) {
			line := name + " " + strings.Join(args[:len(args)-2], " ")
			if line != "cryptsetup open --type luks --readonly --batch-mode --key-file /dev/fd/3" || args[len(args)-2] != d.loops[locked.stretch].Path {
				t.Errorf("it ran %s %q", line, args)
			}
			key, err := io.ReadAll(io.NewSectionReader(files[0], 0, 100))
			if err != nil {
				t.Error(err)
			}
			keys = append(keys, string(key))
			return nil, exits(t, c.answers[len(keys)-1])
		}}
		err := s.unstack(t.Context(), []volume{locked})
		if err == nil || !strings.Contains(err.Error(), c.want) || !slices.Equal(keys, c.keys) {
			t.Errorf("%q: %v, keys %q", c.given, err, keys)
		}
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}
	s := &stack{disk: newDisk(), passphrase: []byte("x")}
	if err := s.unstack(t.Context(), []volume{{fsType: "ext4"}}); err == nil || !strings.Contains(err.Error(), "nothing on it is encrypted") {
		t.Errorf("a passphrase for nothing: %v", err)
	}
}

// A LUKS whose header was cut off or damaged, and one without a passphrase, say so.
func TestBadLUKS(t *testing.T) {
	testlinux.Tool(t, "cryptsetup")
	dir := t.TempDir()
	testlinux.Run(t, "sh", "-ec", "cd "+dir+`; export PATH=$PATH:/usr/sbin:/sbin
truncate -s 32M x; printf secret | cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 x -`)
	for name, c := range map[string]struct{ script, passphrase, want string }{
		"no passphrase": {"", "", "crypto_LUKS, encrypted; its passphrase opens it, in a file: --passphrase-file FILE"},
		"cut off":       {"truncate -s 20K x", "secret", "crypto_LUKS: cryptsetup: exit status"},
		"damaged":       {"dd if=/dev/urandom of=x bs=4k seek=1 count=7 conv=notrunc status=none", "secret", "crypto_LUKS: cryptsetup: exit status"},
	} {
		_, err := openDiskWith(t, "cp --sparse=always "+dir+"/x x; "+c.script, Options{Passphrase: []byte(c.passphrase)})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		t.Logf("%s: %v", name, err)
	}
}

func TestDevicesOfAStack(t *testing.T) {
	lv := volume{name: "la-b/ho-me", vg: "la-b", lv: "ho-me", number: 0}
	md := volume{number: 2, array: "host:0", name: "2"}
	crypt := volume{number: 3, luks: "AB-1", name: "3"}
	for _, c := range []struct {
		v      volume
		source string
		want   bool
	}{
		{lv, "/dev/mapper/la--b-ho--me", true}, {lv, "/dev/la-b/ho-me", true}, {lv, "/dev/mapper/la-b-ho-me", false}, {md, "/dev/md0", true}, {md, "/dev/md/0", true}, {md, "/dev/md1", false},
		{md, "/dev/sda2", false}, {crypt, "/dev/sda3", false}, {crypt, "LUKS=ab-1", true}, {crypt, "LUKS=", false},
	} {
		if c.v.is(c.source, "/dev/sda") != c.want {
			t.Errorf("%s is %s: %v", c.v, c.source, !c.want)
		}
	}
	got := parseCrypttab([]byte("# x\nsda3_crypt UUID=ab-1 none luks\nother /dev/disk/by-uuid/2 /key\nswap /dev/sda5 /dev/urandom swap\nbad\n"))
	if len(got) != 2 || got["/dev/mapper/sda3_crypt"] != "ab-1" || got["/dev/mapper/other"] != "2" {
		t.Errorf("crypttab: %v", got)
	}
}

// Headers in memory are those of the disk, and as large.
func TestHeaders(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "x"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, size := range []int64{1000, 8<<20 + 1000, 20 << 20} {
		if _, err := file.WriteAt([]byte("end"), 512+size-3); err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt([]byte("begin"), 512); err != nil {
			t.Fatal(err)
		}
		f, name, err := headers(volume{stretch: stretch{file, 512, size}})
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(name)
		if err != nil || int64(len(data)) != size || !bytes.HasPrefix(data, []byte("begin")) || !bytes.HasSuffix(data, []byte("end")) {
			t.Errorf("%d bytes: %d, %v", size, len(data), err)
		}
		f.Close()
	}
}
