package diskroot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

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

// Fields of the superblocks of F2FS (kernel, include/linux/f2fs_fs.h), which has two of them, and
// of EROFS (fs/erofs/erofs_fs.h), by where they are in the file system.
const (
	f2fsPathAt     = 1024 + 0x899 // of the first device
	f2fsNextPath   = 68           // from one device to the next
	f2fsNextCopy   = 4096
	erofsDevicesAt = 1024 + 86 // how many others there are

	partsEnd = f2fsPathAt + f2fsNextPath + f2fsNextCopy + 1
)

// namesOthers reports whether an F2FS or EROFS, which begins with head, names further devices. The kernel
// would open them by these names.
func namesOthers(fsType string, head []byte) bool {
	if len(head) < partsEnd {
		head = append(head[:len(head):len(head)], make([]byte, partsEnd-len(head))...)
	}
	switch fsType {
	case "f2fs":
		second := head[f2fsNextCopy:]
		return head[f2fsPathAt] != 0 || head[f2fsPathAt+f2fsNextPath] != 0 || second[f2fsPathAt] != 0 || second[f2fsPathAt+f2fsNextPath] != 0
	case "erofs":
		return binary.LittleEndian.Uint16(head[erofsDevicesAt:]) != 0
	}
	return false
}

// isWhole refuses a file system that has a part elsewhere: a stranger's could name any device of
// this machine.
func isWhole(v volume) error {
	head := make([]byte, min(partsEnd, v.size))
	if _, err := v.file.ReadAt(head, v.offset); err != nil && err != io.EOF {
		return fmt.Errorf("read its superblock: %w", err)
	}
	if namesOthers(v.fsType, head) {
		return errors.New("it is only a part, and names other devices")
	}
	return nil
}
