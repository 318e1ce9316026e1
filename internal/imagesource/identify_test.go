package imagesource

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/testlinux"
)

// made has programs make what they are for; each line is a shell's, in an empty directory,
// and the source is called x.
func made() map[string]Kind {
	return map[string]Kind{
		`: >x`:                                                         kindEmpty,
		`truncate -s 1M x`:                                             kindZeros,
		`echo good morning >x`:                                         kindUnknown,
		`mkdir d; tar -cf x d`:                                         kindTar,
		`mkdir d; tar --format=v7 -cf x d`:                             kindTar,
		`mkdir d; tar --format=gnu -cf x d`:                            kindTar,
		`mkdir d; tar --format=pax -cf x d`:                            kindTar,
		`echo a | gzip >x`:                                             kindGzip,
		`echo a | xz >x`:                                               kindXZ,
		`echo a | zstd -q >x`:                                          kindZstd,
		`echo a | bzip2 >x`:                                            kindBzip2,
		`truncate -s 2M x; mkfs.ext4 -q x`:                             kindExt,
		`truncate -s 2M x; mkfs.ext2 -q -b 4096 x`:                     kindExt,
		`truncate -s 300M x; mkfs.xfs -q x`:                            kindXFS,
		`truncate -s 110M x; mkfs.btrfs -q x`:                          kindBtrfs,
		`mkdir d; mksquashfs d x -quiet -no-progress`:                  kindSquashfs,
		`truncate -s 4M x; mkfs.vfat -F 12 x`:                          kindFAT,
		`truncate -s 40M x; mkfs.vfat -F 32 x`:                         kindFAT,
		`truncate -s 4M x; mkfs.exfat x`:                               kindExFAT,
		`truncate -s 4M x; mkntfs -q -F x`:                             kindNTFS,
		`truncate -s 4M x; mkswap x`:                                   kindSwap,
		`truncate -s 4M x; echo label: gpt | sfdisk x`:                 kindGPT,
		`truncate -s 4M x; printf '%s\n' 1M,1M 2M | sfdisk x`:          kindMBR,
		`mkdir d; echo a >d/a; xorriso -as mkisofs -quiet -o x d`:      kindISO,
		`qemu-img create -f qcow2 x 4M`:                                kindQcow2,
		`qemu-img create -f vmdk x 4M`:                                 kindVMDK,
		`qemu-img create -f vmdk -o subformat=twoGbMaxExtentFlat x 4M`: kindVMDK,
		`qemu-img create -f vdi x 4M`:                                  kindVDI,
		`qemu-img create -f vhdx x 4M`:                                 kindVHDX,
		`qemu-img create -f vpc x 4M`:                                  kindVHD,
		`echo . | cpio -o -H newc >x`:                                  kindCpio,
		`cp /bin/true x`:                                               kindProgram,
	}
}

func TestIdentify(t *testing.T) {
	for command, want := range made() {
		dir := t.TempDir()
		testlinux.Run(t, "sh", "-ec", "cd "+dir+"; export PATH=$PATH:/usr/sbin:/sbin; ("+command+") >/dev/null 2>&1")
		f, err := os.Open(filepath.Join(dir, "x"))
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		data, err := whole(f)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := identifyAt(data); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", command, got, err, want)
		}
		f.Close()
	}
}

// What has no program here is known by its first bytes, from its makers' descriptions.
func TestIdentifyByDescription(t *testing.T) {
	for _, s := range signatures() {
		head := make([]byte, headSize)
		copy(head[s.at:], s.magic)
		if got := identify(head); got != s.kind {
			t.Errorf("%q at %d: %q, want %q", s.magic, s.at, got, s.kind)
		}
		if got := identify(head[:s.at+len(s.magic)-1]); got == s.kind {
			t.Errorf("%q at %d: known without its last byte", s.magic, s.at)
		}
	}
	pool := make([]byte, headSize)
	copy(pool[140<<10:], "\x0c\xb1\xba\x00\x00\x00\x00\x00")
	if got := identify(pool); got != kindZFS {
		t.Errorf("a ZFS pool: %q", got)
	}
}

// Each kind that cannot be read says what to do.
func TestNotUnderstood(t *testing.T) {
	for _, s := range append(signatures(), signature{kind: kindZFS}, signature{kind: kindEmpty}, signature{kind: kindZeros}, signature{kind: kindUnknown}) {
		err := notUnderstood(s.kind, ", compressed with xz", io.NewSectionReader(bytes.NewReader(nil), 0, 0))
		if text := err.Error(); !strings.Contains(text, string(s.kind)) || !strings.ContainsAny(text, ":;") {
			t.Errorf("%q: %v", s.kind, err)
		}
	}
}

func FuzzIdentify(f *testing.F) {
	for _, s := range signatures() {
		f.Add([]byte(strings.Repeat("\x00", min(s.at, 5000)) + s.magic))
	}
	f.Add([]byte(strings.Repeat("\x00", 510) + "\x55\xaa"))
	f.Fuzz(func(t *testing.T, head []byte) {
		if k := identify(head); k == kindEmpty && len(head) > 0 {
			t.Errorf("%q is empty", head)
		}
	})
}
