package imagesource

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"strings"
)

// Kind is what a file or a disk holds, in words for people.
type Kind string

// What a source may be, or be packed in.
const (
	kindUnknown Kind = ""
	kindEmpty   Kind = "an empty file"
	kindZeros   Kind = "nothing but zeros at its beginning, as an empty disk has them"
	kindTar     Kind = "a tar archive"

	kindGzip  Kind = "gzip"
	kindXZ    Kind = "xz"
	kindZstd  Kind = "zstd"
	kindBzip2 Kind = "bzip2"

	kindExt      Kind = "an ext2, ext3 or ext4 file system"
	kindXFS      Kind = "an XFS file system"
	kindBtrfs    Kind = "a btrfs file system"
	kindF2FS     Kind = "an F2FS file system"
	kindJFS      Kind = "a JFS file system"
	kindErofs    Kind = "an EROFS file system"
	kindSquashfs Kind = "a squashfs file system"
	kindFAT      Kind = "a FAT file system"

	kindGPT Kind = "a disk with a GPT"
	kindMBR Kind = "a disk with an MBR"

	kindQcow2 Kind = "a qcow2 disk"
	kindVMDK  Kind = "a VMDK disk"
	kindVDI   Kind = "a VDI disk"
	kindVHDX  Kind = "a VHDX disk"
	kindVHD   Kind = "a VHD disk"

	kindLUKS Kind = "a partition encrypted with LUKS"
	kindLVM  Kind = "a physical volume of LVM"
	kindRAID Kind = "a member of a Linux software RAID"
	kindSwap Kind = "swap space"
	kindISO  Kind = "an ISO 9660 file system, as media and CDs have it"

	kindNTFS      Kind = "NTFS, the file system of Windows"
	kindBitLocker Kind = "a Windows partition encrypted with BitLocker"
	kindExFAT     Kind = "an exFAT file system, which holds no Linux"
	kindHFS       Kind = "an HFS+ file system of macOS"
	kindAPFS      Kind = "an APFS file system of macOS"
	kindZFS       Kind = "a member of a ZFS pool"
	kindBcachefs  Kind = "a bcachefs file system"
	kindReiserFS  Kind = "a ReiserFS file system"

	kindZip     Kind = "a zip archive"
	kind7z      Kind = "a 7z archive"
	kindRAR     Kind = "a RAR archive"
	kindCpio    Kind = "a cpio archive"
	kindAr      Kind = "an ar archive, such as a Debian package"
	kindRPM     Kind = "an RPM package"
	kindLZ4     Kind = "something that lz4 has compressed"
	kindProgram Kind = "a program or a kernel"
)

// headSize is how much of a source identify is given, in bytes: as far as the first
// label of a ZFS pool reaches.
const headSize = 256 << 10

// signatures tell what begins with a head. The first that fits counts, so those that others
// may lie in come first: an ISO image has partition tables, and so may a FAT file system.
func signatures() []signature {
	return []signature{
		{kindGzip, 0, "\x1f\x8b\x08"},
		{kindXZ, 0, "\xfd7zXZ\x00"},
		{kindZstd, 0, "\x28\xb5\x2f\xfd"},
		{kindBzip2, 0, "BZh"},
		{kindLZ4, 0, "\x04\x22\x4d\x18"},
		{kindZip, 0, "PK\x03\x04"},
		{kind7z, 0, "7z\xbc\xaf\x27\x1c"},
		{kindRAR, 0, "Rar!\x1a\x07"},
		{kindCpio, 0, "07070"},
		{kindAr, 0, "!<arch>\n"},
		{kindRPM, 0, "\xed\xab\xee\xdb"},
		{kindProgram, 0, "\x7fELF"},

		{kindQcow2, 0, "QFI\xfb"},
		{kindVMDK, 0, "KDMV"},
		{kindVMDK, 0, "COWD"},
		{kindVMDK, 0, "# Disk DescriptorFile"},
		{kindVDI, 64, "\x7f\x10\xda\xbe"},
		{kindVHDX, 0, "vhdxfile"},
		{kindVHD, 0, "conectix"},

		{kindLUKS, 0, "LUKS\xba\xbe"},
		{kindBitLocker, 3, "-FVE-FS-"},
		{kindNTFS, 3, "NTFS    "},
		{kindExFAT, 3, "EXFAT   "},
		{kindXFS, 0, "XFSB"},
		{kindSquashfs, 0, "hsqs"},
		{kindBtrfs, 0x10040, "_BHRfS_M"},
		{kindF2FS, 1024, "\x10\x20\xf5\xf2"},
		{kindErofs, 1024, "\xe2\xe1\xf5\xe0"},
		{kindJFS, 32 << 10, "JFS1"},
		{kindReiserFS, 64<<10 + 52, "ReIsEr"},
		{kindBcachefs, 4096 + 24, "\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81"},
		{kindAPFS, 32, "NXSB"},
		{kindHFS, 1024, "H+\x00\x04"},
		{kindHFS, 1024, "HX\x00\x05"},
		{kindRAID, 0, "\xfc\x4e\x2b\xa9"},
		{kindRAID, 4096, "\xfc\x4e\x2b\xa9"},
		{kindLVM, 512, "LABELONE"},
		{kindLVM, 0, "LABELONE"},
		{kindSwap, 4086, "SWAPSPACE2"},
		{kindISO, 32<<10 + 1, "CD001"},
		{kindGPT, 512, "EFI PART"},
		{kindGPT, 4096, "EFI PART"},
		{kindFAT, 54, "FAT1"},
		{kindFAT, 82, "FAT32   "},
	}
}

type signature struct {
	kind  Kind
	at    int
	magic string
}

// identify says what begins with head, the first headSize bytes of it or all.
func identify(head []byte) Kind {
	if len(head) == 0 {
		return kindEmpty
	}
	for _, s := range signatures() {
		if len(head) >= s.at+len(s.magic) && string(head[s.at:s.at+len(s.magic)]) == s.magic {
			return s.kind
		}
	}
	switch {
	case isExt(head):
		return kindExt
	case isTar(head):
		return kindTar
	case isZFS(head):
		return kindZFS
	case len(bytes.Trim(head, "\x00")) == 0:
		return kindZeros
	case bytes.HasPrefix(head, []byte("MZ")): // a kernel's boot sector may end like an MBR
		return kindProgram
	case hasMBR(head):
		return kindMBR
	}
	return kindUnknown
}

// isExt asks for more than the two bytes that mark it: a plausible block size.
func isExt(head []byte) bool {
	const superblock = 1024
	if len(head) < superblock+64 {
		return false
	}
	s := head[superblock:]
	return string(s[56:58]) == "\x53\xef" && binary.LittleEndian.Uint32(s[24:]) <= 6
}

// isTar believes the checksum, which the oldest archives have, too.
func isTar(head []byte) bool {
	if len(head) < 512 || len(bytes.Trim(head[:512], "\x00")) == 0 {
		return false
	}
	_, err := tar.NewReader(bytes.NewReader(head)).Next()
	return err == nil || strings.HasPrefix(string(head[257:]), "ustar")
}

// isZFS looks for an uberblock in the pool's first label.
func isZFS(head []byte) bool {
	for at := 128 << 10; at+8 <= len(head); at += 1024 {
		if string(head[at:at+8]) == "\x0c\xb1\xba\x00\x00\x00\x00\x00" {
			return true
		}
	}
	return false
}

// hasMBR reports whether a sector ends as an MBR does and its table makes sense: a
// partition of the table is bootable or not, and one of them exists.
func hasMBR(head []byte) bool {
	if len(head) < 512 || head[510] != 0x55 || head[511] != 0xaa {
		return false
	}
	exists := false
	for i := range 4 {
		e := head[446+16*i:][:16]
		if e[0]&0x7f != 0 {
			return false
		}
		exists = exists || e[4] != 0 && binary.LittleEndian.Uint32(e[12:]) != 0
	}
	return exists
}

// advice says what to do with what cannot be read; what is not in it can be, or
// nobody knows it.
func advice(k Kind) string {
	switch k {
	case kindEmpty, kindZeros:
		return "there is nothing to make an image of"
	case kindNTFS, kindBitLocker, kindExFAT:
		return "a Windows disk holds no Linux; name the disk or partition that has the Linux"
	case kindHFS, kindAPFS:
		return "a disk of macOS holds no Linux"
	case kindFAT:
		return "it is perhaps the boot partition of a Linux; name the whole disk, or the partition with the root"
	case kindSwap:
		return "name the whole disk, or the partition with the root"
	case kindISO:
		return "an installation medium is no installed Linux: install it, or name the squashfs that is on a live medium"
	case kindZFS:
		return "import the pool without changing it (zpool import -o readonly=on -R /mnt POOL) and name /mnt"
	case kindBcachefs, kindReiserFS:
		return "mount it read-only and name the directory"
	case kindZip, kind7z, kindRAR, kindLZ4:
		return "unpack it, and name what comes out"
	case kindCpio:
		return "unpack it as root (cpio -idm) and name the directory"
	case kindAr, kindRPM:
		return "a package is a part of a Linux, not one"
	case kindProgram:
		return "name the Linux that it belongs to"
	}
	return ""
}
