package diskroot

import (
	"context"
	"errors"
	"io"
	"os"
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
	file := loopable(t, 100<<20)
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
