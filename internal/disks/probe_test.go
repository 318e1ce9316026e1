package disks

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const (
	mib    = 1 << 20
	someID = "11111111-2222-3333-4444-555555555555"
)

// run runs one of the system's own tools, which are the judges here.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path = "/usr/sbin/" + name
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// image makes a sparse file of the given size and runs a command on it, whose
// last argument the file's name becomes.
func image(t testing.TB, size int64, command ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	if len(command) > 0 {
		run(t, command[0], append(command[1:], path)...)
	}
	return path
}

func poke(t testing.TB, path string, offset int64, data string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte(data), offset); err != nil {
		t.Fatal(err)
	}
}

func probePath(t testing.TB, path string) Superblock {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	sb, err := Probe(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return sb
}

// blkid asks util-linux what the file holds.
func blkid(t testing.TB, path string) map[string]string {
	t.Helper()
	facts := make(map[string]string)
	for line := range strings.Lines(run(t, "blkid", "-p", "-o", "export", path)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			facts[key] = strings.ReplaceAll(value, `\ `, " ")
		}
	}
	return facts
}

func TestProbeJudgedByBlkid(t *testing.T) {
	for name, tt := range map[string]struct {
		size     int64
		mkfs     string
		noLabel  bool // blkid reads it from a place that Probe leaves alone
		obstacle string
	}{
		"ext2":           {size: 16 * mib, mkfs: "mkfs.ext2 -q -L two -U " + someID},
		"ext3":           {size: 16 * mib, mkfs: "mkfs.ext3 -q -L three"},
		"ext4":           {size: 16 * mib, mkfs: "mkfs.ext4 -q -L sixteenletters16 -U " + someID},
		"ext4 1K blocks": {size: 16 * mib, mkfs: "mkfs.ext4 -q -b 1024 -O ^has_journal"},
		"ext4 4K blocks": {size: 16 * mib, mkfs: "mkfs.ext4 -q -b 4096 -O 64bit,metadata_csum"},
		"ext4 no types":  {size: 16 * mib, mkfs: "mkfs.ext4 -q -O ^filetype", obstacle: "filetype"},
		"ext4 casefold":  {size: 16 * mib, mkfs: "mkfs.ext4 -q -O casefold", obstacle: "case"},
		"xfs":            {size: 320 * mib, mkfs: "mkfs.xfs -q -L twelveletter -m uuid=" + someID},
		"xfs v4":         {size: 320 * mib, mkfs: "mkfs.xfs -q -m crc=0 -n ftype=1"},
		"xfs no types":   {size: 320 * mib, mkfs: "mkfs.xfs -q -m crc=0 -n ftype=0", obstacle: "ftype=0"},
		"xfs 4K sectors": {size: 320 * mib, mkfs: "mkfs.xfs -q -s size=4096"},
		"btrfs":          {size: 128 * mib, mkfs: "mkfs.btrfs -q -L better -U " + someID},
		"fat12":          {size: 2 * mib, mkfs: "mkfs.vfat -F 12 -n TWELVE", obstacle: "vfat"},
		"fat16":          {size: 32 * mib, mkfs: "mkfs.vfat -F 16 -n VIVERCONF -i ABCD1234", obstacle: "vfat"},
		"fat32":          {size: 64 * mib, mkfs: "mkfs.vfat -F 32 -n THIRTYTWO", obstacle: "vfat"},
		"fat no name":    {size: 64 * mib, mkfs: "mkfs.vfat -F 32", obstacle: "vfat"},
		"fat 4K sectors": {size: 64 * mib, mkfs: "mkfs.vfat -S 4096", obstacle: "vfat"},
		"exfat":          {size: 16 * mib, mkfs: "mkfs.exfat -L music", noLabel: true, obstacle: "exfat"},
		"ntfs":           {size: 16 * mib, mkfs: "mkfs.ntfs -q -F -f -L windows", noLabel: true, obstacle: "ntfs"},
		"swap":           {size: 2 * mib, mkfs: "mkswap -q -L swappy -U " + someID},
		"swap 64K":       {size: 2 * mib, mkfs: "mkswap -q -p 65536"},
		"zeroes":         {size: 2 * mib},
		"tiny":           {size: 700},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := image(t, tt.size, strings.Fields(tt.mkfs)...)
			got := probePath(t, path)
			if tt.mkfs == "" {
				if got != (Superblock{}) {
					t.Errorf("nothing became %+v", got)
				}
				return
			}
			want := blkid(t, path)
			if got.Type != want["TYPE"] {
				t.Errorf("type %q, blkid says %q", got.Type, want["TYPE"])
			}
			if label := want["LABEL"]; got.Label != label && !tt.noLabel {
				t.Errorf("label %q, blkid says %q", got.Label, label)
			}
			if got.UUID != want["UUID"] {
				t.Errorf("UUID %q, blkid says %q", got.UUID, want["UUID"])
			}
			if !strings.Contains(got.Obstacle, tt.obstacle) || got.Obstacle != "" && tt.obstacle == "" {
				t.Errorf("obstacle %q, want one about %q", got.Obstacle, tt.obstacle)
			}
			if got.Container || got.Hibernated || got.Errors {
				t.Errorf("a fresh file system is %+v", got)
			}
		})
	}
}

func TestProbeISO(t *testing.T) {
	dir := t.TempDir()
	iso := filepath.Join(dir, "medium.iso")
	run(t, "xorriso", "-as", "mkisofs", "-quiet", "-V", "VIVER", "-o", iso, t.TempDir())
	got, want := probePath(t, iso), blkid(t, iso)
	if got.Type != "iso9660" || got.Type != want["TYPE"] || got.Label != "VIVER" || got.Label != want["LABEL"] {
		t.Errorf("got %+v, blkid says %v", got, want)
	}
}

// TestProbeContainers plants a container's magic over a whole file system, as
// a mirrored disk shows it, and asks blkid whether it is the right magic.
func TestProbeContainers(t *testing.T) {
	const size = 16*mib + 512*7 // not a multiple of anything
	le := func(vs ...uint32) string {
		var b bytes.Buffer
		_ = binary.Write(&b, binary.LittleEndian, vs)
		return b.String()
	}
	md1 := func(offset int64) string { // version 1.x holds its own sector
		b := make([]byte, 256)
		copy(b, le(0xa92b4efc, 1))
		binary.LittleEndian.PutUint64(b[144:], uint64(offset/512))
		return string(b)
	}
	end10 := int64((size>>9 - 16) &^ 7 << 9)
	for name, tt := range map[string]struct {
		offset int64
		bytes  string
		kind   string
	}{
		"luks":    {0, "LUKS\xba\xbe\x00\x01", "crypto_LUKS"},
		"md 1.1":  {0, md1(0), "linux_raid_member"},
		"md 1.2":  {4096, md1(4096), "linux_raid_member"},
		"md 1.0":  {end10, md1(end10), "linux_raid_member"},
		"md 0.90": {size&^0xffff - 0x10000, le(0xa92b4efc, 0, 90), "linux_raid_member"},
		"intel":   {(size/512 - 2) * 512, "Intel Raid ISM Cfg Sig. 1.1.00", "isw_raid_member"},
		"drbd":    {size&^0xfff - 0x1000 + 60, "\x83\x74\x02\x6b", "drbd"},
	} {
		t.Run(name, func(t *testing.T) {
			path := image(t, size, "mkfs.ext4", "-q", "-E", "nodiscard")
			poke(t, path, tt.offset, tt.bytes)
			got, want := probePath(t, path), blkid(t, path)
			if got.Type != tt.kind || !got.Container {
				t.Errorf("got %+v, want a %s", got, tt.kind)
			}
			// blkid wants more of DRBD than its magic; and where it sees both
			// the container and the file system it may decline to choose.
			if kind := want["TYPE"]; kind != tt.kind && name != "drbd" {
				t.Errorf("blkid says %q, so the magic of this test is wrong", kind)
			}
		})
	}
}

func TestProbeHibernation(t *testing.T) {
	for _, magic := range []string{"S1SUSPEND\x00", "S2SUSPEND\x00", "ULSUSPEND\x00", "LINHIB0001"} {
		path := image(t, 2*mib, "mkswap", "-q", "-L", "asleep")
		poke(t, path, 4096-10, magic)
		if sb := probePath(t, path); !sb.Hibernated || sb.Type != "swap" || sb.Label != "asleep" {
			t.Errorf("%q: %+v", magic, sb)
		}
		if kind := blkid(t, path)["TYPE"]; kind != "swsuspend" {
			t.Errorf("%q: blkid says %q", magic, kind)
		}
	}
}

// TestProbeExtState sets the state with debugfs, whose makers define it.
func TestProbeExtState(t *testing.T) {
	for _, tt := range []struct {
		command       string
		clean, errors bool
	}{
		{"stats", true, false},
		{"feature needs_recovery", false, false},
		{"set_super_value state 3", true, true},
		{"set_super_value state 0", false, false},
	} {
		path := image(t, 16*mib, "mkfs.ext4", "-q")
		run(t, "debugfs", "-w", "-R", tt.command, path)
		if sb := probePath(t, path); sb.Clean != tt.clean || sb.Errors != tt.errors {
			t.Errorf("after %q: clean %v errors %v, want %v %v", tt.command, sb.Clean, sb.Errors, tt.clean, tt.errors)
		}
	}
}

// FuzzProbe mutates the places where superblocks are, of a device of any size.
func FuzzProbe(f *testing.F) {
	for _, mkfs := range []string{"mkfs.ext4 -q", "mkfs.vfat", "mkswap -q", "mkfs.exfat"} {
		path := image(f, 16*mib, strings.Fields(mkfs)...)
		file, err := os.Open(path)
		if err != nil {
			f.Fatal(err)
		}
		head := make([]byte, 8192)
		if _, err := file.ReadAt(head, 0); err != nil {
			f.Fatal(err)
		}
		file.Close()
		f.Add(head, []byte{}, int64(16*mib))
	}
	f.Add([]byte("XFSB"), bytes.Repeat([]byte("\x01CD001"), 500), int64(1<<40))
	f.Add([]byte{}, []byte("_BHRfS_M"), int64(65600))
	f.Fuzz(func(t *testing.T, head, far []byte, size int64) {
		sb, err := Probe(sparse{head, far, size}, size)
		if err != nil {
			t.Fatalf("a readable device gave %v", err)
		}
		if sb.Type == "" && sb != (Superblock{}) {
			t.Fatalf("nothing recognised, but %+v", sb)
		}
	})
}

// sparse is a device with bytes at its start and from 32 KiB on.
type sparse struct {
	head, far []byte
	size      int64
}

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > s.size || len(p) > mib {
		panic("read outside of the device")
	}
	clear(p)
	if off < int64(len(s.head)) {
		copy(p, s.head[off:])
	}
	if at := off - 32768; at >= 0 && at < int64(len(s.far)) {
		copy(p, s.far[at:])
	}
	return len(p), nil
}
