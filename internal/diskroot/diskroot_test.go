package diskroot

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/mountinfo"
)

func TestParsePartitions(t *testing.T) {
	got := parsePartitions([]byte(`NR="1" START="2048" SECTORS="40960" UUID="d5e2" NAME="EFI \x22system\x22"
NR="2" START="0" SECTORS="10" UUID="" NAME=""
NR="3" START="43008" SECTORS="204800" UUID="6141073e-03" NAME=""
NR="4" START="99999999999999" SECTORS="9223372036854775807" UUID="" NAME=""
no partition
`), 200<<20)
	want := []volume{
		{stretch: stretch{nil, 1 << 20, 20 << 20}, number: 1, partUUID: "d5e2", partLabel: `EFI "system"`},
		{stretch: stretch{nil, 21 << 20, 100 << 20}, number: 3, partUUID: "6141073e-03"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v", got)
	}
}

func TestVolumeOfALine(t *testing.T) {
	v := volume{number: 2, uuid: "ab-cd", label: "home", partUUID: "ef-01"}
	for source, want := range map[string]bool{
		"UUID=ab-cd": true, "UUID=AB-CD": true, `UUID="ab-cd"`: true, "UUID=": false, "LABEL=home": true, "LABEL=root": false, "PARTUUID=ef-01": true,
		"PARTLABEL=": false, "/dev/disk/by-uuid/ab-cd": true, `/dev/disk/by-label/h\x6fme`: true, "/dev/sda2": true, "/dev/sda3": false, "/dev/sdb2": false, "/dev/nvme0n1p2": false,
		"server:/home": false, "/dev/mapper/vg-home": false, "": false,
	} {
		if got := v.is(source, "/dev/sda"); got != want {
			t.Errorf("%q: %v", source, got)
		}
	}
	if disk, number := splitDevice("/dev/nvme0n1p12"); disk != "/dev/nvme0n1p" || number != 12 {
		t.Errorf("%s %d", disk, number)
	}
}

func TestBelongs(t *testing.T) {
	for line, want := range map[string]bool{
		"UUID=1 /home ext4 defaults": true, "UUID=1 / ext4 defaults": false, "UUID=1 /boot/efi vfat umask=77": true, "UUID=1 none swap sw": false,
		"tmpfs /tmp tmpfs x": false, "server:/home /home nfs x": false, "/data/home /home auto bind": false, "UUID=1 /mnt/stick vfat noauto": false,
		"UUID=1 /boot ext2 noauto": true, "/a.iso /srv/iso iso9660 loop": false, "UUID=1 //../ ext4 x": false,
	} {
		if got := belongs(mountinfo.ParseTable([]byte(line))[0]); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

func FuzzNeedsRecovery(f *testing.F) {
	head := []byte(strings.Repeat("\x00", superblockEnd))
	head[extMagicAt], head[extMagicAt+1], head[extIncompatAt] = 0x53, 0xef, 0x46
	if !needsRecovery(head) || needsRecovery(head[:superblockEnd-1]) {
		f.Error("the flag is not seen, or where it is not")
	}
	f.Add(head)
	f.Fuzz(func(_ *testing.T, head []byte) { needsRecovery(head) })
}

// What would have the kernel open another device of this machine is refused before there is a
// device for it.
func TestPartOfAFileSystem(t *testing.T) {
	for at, c := range map[int]struct {
		fsType string
		want   bool
	}{
		1024 + 86: {"erofs", true}, 1024 + 87: {"erofs", true}, 1024 + 88: {"erofs", false}, 1024 + 85: {"erofs", false},
		1024 + 0x899: {"f2fs", true}, 1024 + 0x8dd: {"f2fs", true}, 5120 + 0x899: {"f2fs", true}, 5120 + 0x8dd: {"f2fs", true}, 1024 + 0x898: {"f2fs", false},
		5120 + 86: {"ext4", false},
	} {
		const offset, size = 512, 8192
		file, err := os.Create(filepath.Join(t.TempDir(), "x"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.WriteAt([]byte{1}, offset+int64(at)); err != nil {
			t.Fatal(err)
		}
		err = newDisk().mount(volume{stretch: stretch{file, offset, size}, fsType: c.fsType}, t.TempDir(), "nowhere", "")
		if got := err != nil && strings.Contains(err.Error(), "it is only a part, and names other devices"); got != c.want {
			t.Errorf("%s with a byte at %#x: %v", c.fsType, at, err)
		}
	}
}

func FuzzNamesOthers(f *testing.F) {
	f.Add([]byte("short"))
	f.Fuzz(func(_ *testing.T, head []byte) {
		namesOthers("f2fs", head)
		namesOthers("erofs", head)
	})
}

func FuzzParsePartitions(f *testing.F) {
	f.Add([]byte(`NR="1" START="2048" SECTORS="40960" UUID="d5e2" NAME="\x22"`))
	f.Fuzz(func(t *testing.T, out []byte) {
		for _, v := range parsePartitions(out, 1<<20) {
			if v.offset <= 0 || v.size <= 0 || v.offset+v.size > 1<<20 {
				t.Errorf("%+v", v)
			}
		}
	})
}
