package diskroot

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/testlinux"
)

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
