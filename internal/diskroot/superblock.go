package diskroot

import "encoding/binary"

// Fields of the superblock of ext2, ext3 and ext4 (kernel, fs/ext4/ext4.h), by where they are in
// the file system, in bytes.
const (
	extMagicAt    = 1024 + 0x38
	extIncompatAt = 1024 + 0x60
	superblockEnd = 1024 + 0x64

	extMagic   = 0xef53
	extRecover = 0x4 // the journal has to be replayed
)

// needsRecovery reports whether the journal of an ext3 or ext4, which begins with head, has
// changes that the rest has not.
func needsRecovery(head []byte) bool {
	return len(head) >= superblockEnd && binary.LittleEndian.Uint16(head[extMagicAt:]) == extMagic &&
		binary.LittleEndian.Uint32(head[extIncompatAt:])&extRecover != 0
}
