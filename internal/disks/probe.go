package disks

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Superblock is what a block device holds, by its first (and a few of its last)
// kilobytes.
type Superblock struct {
	// Type is the name that blkid(8) uses: ext2, ext3, ext4, xfs, btrfs, vfat,
	// exfat, ntfs, iso9660, swap; or a container, see Container. Empty means
	// that nothing was recognised.
	Type string
	// Label and UUID are empty where the superblock does not hold them.
	Label, UUID string
	// Container: the device is part of something larger (RAID, LVM, an
	// encrypted volume) and what it seems to hold must not be touched.
	Container bool
	// Hibernated: this swap space has a hibernated system, which expects that its
	// disks do not change.
	Hibernated bool
	// Clean: the file system says it was unmounted. Only ext2-4 tell.
	Clean bool
	// Errors: the file system asks to be checked.
	Errors bool
	// Obstacle is why an overlay's writable layer cannot live in it.
	Obstacle string
}

// signature is a magic value at a fixed place.
type signature struct {
	kind   string
	offset int64 // negative: from the end
	magic  string
}

// containers come first: a mirrored disk shows a whole file system that must
// not be written through one half.
func containers(size int64) []signature {
	const le, be = "\xfc\x4e\x2b\xa9", "\xa9\x2b\x4e\xfc"
	md10 := (size>>9 - 16) &^ 7 << 9
	md090 := size&^0xffff - 0x10000
	return []signature{
		{"crypto_LUKS", 0, "LUKS\xba\xbe"},
		{"BitLocker", 3, "-FVE-FS-"},
		{"LVM2_member", 24, "LVM2 001"}, {"LVM2_member", 512 + 24, "LVM2 001"},
		{"LVM2_member", 1024 + 24, "LVM2 001"}, {"LVM2_member", 1536 + 24, "LVM2 001"},
		{"linux_raid_member", 0, le}, {"linux_raid_member", 4096, le},
		{"linux_raid_member", md10, le}, {"linux_raid_member", md090, le}, {"linux_raid_member", md090, be},
		{"isw_raid_member", size&^511 - 1024, "Intel Raid ISM Cfg Sig. "},
		{"ddf_raid_member", size&^511 - 512, "\xde\x11\xde\x11"}, {"ddf_raid_member", size&^511 - 257*512, "\xde\x11\xde\x11"},
		{"drbd", size&^0xfff - 0x1000 + 60, "\x83\x74\x02\x6b"},
		{"bcache", 4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"},
	}
}

// Probe reads the superblocks of a device of the given size in bytes. An error
// means that the device could not be read, not that nothing is on it.
func Probe(r io.ReaderAt, size int64) (Superblock, error) {
	d := &device{r: r, size: size}
	for _, s := range containers(size) {
		if string(d.read(s.offset, len(s.magic))) == s.magic {
			return Superblock{Type: s.kind, Container: true}, d.err
		}
	}
	for _, probe := range []func(*device) (Superblock, bool){
		probeSwap, probeXFS, probeBtrfs, probeExt, probeISO, probeNTFS, probeExFAT, probeFAT,
	} {
		if sb, ok := probe(d); ok && d.err == nil {
			return sb, nil
		}
	}
	return Superblock{}, d.err
}

// device reads with its first error remembered; what lies outside of the
// device reads as nothing.
type device struct {
	r    io.ReaderAt
	size int64
	err  error
}

func (d *device) read(offset int64, n int) []byte {
	if offset < 0 || offset+int64(n) > d.size || d.err != nil {
		return nil
	}
	b := make([]byte, n)
	if _, err := d.r.ReadAt(b, offset); err != nil {
		if !errors.Is(err, io.EOF) {
			d.err = err
		}
		return nil
	}
	return b
}

// probeSwap knows swap space by the end of its first page, whose size is the
// machine's that made it. A hibernated system replaces the magic by its own.
func probeSwap(d *device) (Superblock, bool) {
	for _, page := range []int64{4096, 8192, 16384, 32768, 65536} {
		magic := d.read(page-10, 10)
		if magic == nil {
			break
		}
		sb := Superblock{Type: "swap"}
		switch {
		case bytes.Equal(magic, []byte("SWAPSPACE2")):
		case bytes.Equal(magic, []byte("SWAP-SPACE")):
		case bytes.HasPrefix(magic, []byte("S1SUSPEND")), bytes.HasPrefix(magic, []byte("S2SUSPEND")),
			bytes.HasPrefix(magic, []byte("ULSUSPEND")), bytes.HasPrefix(magic, []byte("LINHIB0001")):
			sb.Hibernated = true
		default:
			continue
		}
		if b := d.read(1024, 44); b != nil {
			sb.UUID, sb.Label = uuid(b[12:28]), text(b[28:44])
		}
		return sb, true
	}
	if bytes.Equal(d.read(0, 8), []byte("\xed\xc3\x02\xe9\x98\x56\xe5\x0c")) {
		return Superblock{Type: "swap", Hibernated: true}, true // TuxOnIce
	}
	return Superblock{}, false
}

// Flags of the ext2-4 superblock, see the kernel's fs/ext4/ext4.h.
const (
	extCompatJournal    = 0x4
	extIncompatFileType = 0x2
	extIncompatRecover  = 0x4
	extIncompatJournal  = 0x8 // the device is a journal for another one
	extIncompatCasefold = 0x20000
	// What ext3 knew; anything beyond is ext4.
	ext3Incompat = extIncompatFileType | extIncompatRecover | 0x10
	ext3ROCompat = 0x1 | 0x2 | 0x4
	extValid     = 0x1
	extErrors    = 0x2
	extOrphans   = 0x4
)

func probeExt(d *device) (Superblock, bool) {
	b := d.read(1024, 256)
	if b == nil || le16(b, 0x38) != 0xef53 {
		return Superblock{}, false
	}
	// Two bytes of magic are few: want a believable geometry as well.
	if le32(b, 0x18) > 6 || le32(b, 0) == 0 || le32(b, 4) == 0 || le32(b, 0x4c) > 1 {
		return Superblock{}, false
	}
	state, compat, incompat, ro := le16(b, 0x3a), le32(b, 0x5c), le32(b, 0x60), le32(b, 0x64)
	sb := Superblock{
		Type:   "ext4",
		Label:  text(b[0x78:0x88]),
		UUID:   uuid(b[0x68:0x78]),
		Clean:  state&extValid != 0 && incompat&extIncompatRecover == 0,
		Errors: state&extErrors != 0,
	}
	switch {
	case incompat&extIncompatJournal != 0:
		return Superblock{Type: "jbd", Container: true}, true
	case incompat&^ext3Incompat != 0 || ro&^ext3ROCompat != 0:
	case compat&extCompatJournal != 0:
		sb.Type = "ext3"
	default:
		sb.Type = "ext2"
	}
	switch {
	case incompat&extIncompatFileType == 0:
		sb.Obstacle = "it was made without the filetype feature"
	case incompat&extIncompatCasefold != 0:
		sb.Obstacle = "it ignores the case of file names"
	}
	return sb, true
}

func probeXFS(d *device) (Superblock, bool) {
	b := d.read(0, 512)
	if !bytes.HasPrefix(b, []byte("XFSB")) {
		return Superblock{}, false
	}
	version := binary.BigEndian.Uint16(b[100:])
	if v := version & 0xf; v != 4 && v != 5 {
		return Superblock{}, false
	}
	ftype := version&0xf == 5 && binary.BigEndian.Uint32(b[216:])&0x1 != 0 ||
		version&0xf == 4 && version&0x8000 != 0 && binary.BigEndian.Uint32(b[200:])&0x200 != 0
	sb := Superblock{Type: "xfs", UUID: uuid(b[32:48]), Label: text(b[108:120])}
	if !ftype {
		sb.Obstacle = "it was made with ftype=0"
	}
	return sb, true
}

func probeBtrfs(d *device) (Superblock, bool) {
	b := d.read(65536, 0x22b)
	if b == nil || string(b[0x40:0x48]) != "_BHRfS_M" {
		return Superblock{}, false
	}
	sb := Superblock{Type: "btrfs", UUID: uuid(b[0x20:0x30]), Label: text(b[0x12b:0x22b])}
	if n := binary.LittleEndian.Uint64(b[0x88:]); n > 1 {
		sb.Obstacle = fmt.Sprintf("it spans %d disks", n)
	}
	return sb, true
}

func probeISO(d *device) (Superblock, bool) {
	// Volume descriptors follow each other; the primary one (type 1) holds the
	// label (ECMA-119, 8.4).
	for offset := int64(32768); offset < 32768+16*2048; offset += 2048 {
		b := d.read(offset, 72)
		if b == nil || string(b[1:6]) != "CD001" || b[0] == 255 {
			break
		}
		if b[0] == 1 {
			return Superblock{Type: "iso9660", Label: text(b[40:72]), Obstacle: "it cannot be written"}, true
		}
	}
	return Superblock{}, false
}

func probeNTFS(d *device) (Superblock, bool) {
	b := d.read(0, 512)
	if b == nil || string(b[3:11]) != "NTFS    " {
		return Superblock{}, false
	}
	return Superblock{
		Type: "ntfs", UUID: fmt.Sprintf("%016X", binary.LittleEndian.Uint64(b[0x48:])),
		Obstacle: "ntfs cannot hold a Linux system's files",
	}, true
}

func probeExFAT(d *device) (Superblock, bool) {
	b := d.read(0, 512)
	if b == nil || string(b[3:11]) != "EXFAT   " {
		return Superblock{}, false
	}
	return Superblock{Type: "exfat", UUID: serial(le32(b, 100)), Obstacle: "exfat cannot hold a Linux system's files"}, true
}

func probeFAT(d *device) (Superblock, bool) {
	b := d.read(0, 512)
	if b == nil {
		return Superblock{}, false
	}
	sector, cluster, media := le16(b, 11), b[13], b[21]
	power := func(n uint16) bool { return n != 0 && n&(n-1) == 0 }
	if !power(sector) || sector < 512 || sector > 4096 || !power(uint16(cluster)) || le16(b, 14) == 0 ||
		b[16] == 0 || b[16] > 2 || media != 0xf0 && media < 0xf8 {
		return Superblock{}, false
	}
	sb := Superblock{Type: "vfat", Obstacle: "vfat cannot hold a Linux system's files"}
	// FAT32 has no 16-bit FAT size and keeps its identity further back.
	at := 0x26
	if le16(b, 22) == 0 {
		if le32(b, 36) == 0 {
			return Superblock{}, false
		}
		at = 0x42
	}
	if sig := b[at]; sig == 0x28 || sig == 0x29 {
		sb.UUID = serial(le32(b, at+1))
		if sig == 0x29 {
			sb.Label = text(b[at+5 : at+16])
		}
	}
	if sb.Label == "NO NAME" {
		sb.Label = ""
	}
	return sb, true
}

func le16(b []byte, at int) uint16 { return binary.LittleEndian.Uint16(b[at:]) }
func le32(b []byte, at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }

func text(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return strings.ToValidUTF8(strings.TrimRight(string(b), " "), "?")
}

func uuid(b []byte) string {
	if bytes.Equal(b, make([]byte, 16)) {
		return ""
	}
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// serial spells the volume serial number of DOS's file systems.
func serial(n uint32) string { return fmt.Sprintf("%04X-%04X", n>>16, n&0xffff) }
