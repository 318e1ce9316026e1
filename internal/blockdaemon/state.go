package blockdaemon

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/control"
	"viver.lan/internal/durable"
)

func readNetwork(path string) (n bootnet.Network, err error) {
	f, err := os.Open(path)
	if err != nil {
		return n, fmt.Errorf("read the network's state: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return bootnet.ReadNetwork(f)
}

func writeNetwork(path string, n bootnet.Network) error {
	var b bytes.Buffer
	if err := n.Write(&b); err != nil {
		return err
	}
	return durable.WriteFile(path, b.Bytes(), 0o644)
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
