package blockdaemon

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"viver.lan/internal/control"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
)

func readManifest(path string) (*manifest.Manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open the image's manifest: %w", err)
	}
	defer f.Close()
	return manifest.Read(f)
}

func readMetainfo(path string) (*metainfo.Info, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("open the image's metainfo: %w", err)
	}
	info, err := metainfo.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return info, nil
}

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
