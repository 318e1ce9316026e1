package blockdaemon

import (
	"golang.org/x/sys/unix"

	"viver.lan/internal/control"
)

// written says how full the overlay at root is, nil when none is mounted there.
// An overlay answers for the file system that its writable layer is on.
func written(root string) *control.Written {
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil || fs.Type != unix.OVERLAYFS_SUPER_MAGIC {
		return nil
	}
	block := uint64(fs.Bsize)
	return &control.Written{Size: fs.Blocks * block, Free: fs.Bavail * block, Files: fs.Files, FilesFree: fs.Ffree}
}
