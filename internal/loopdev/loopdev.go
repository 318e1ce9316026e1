// Package loopdev shows a part of a file or a device as a block device of its own
// (loop(4)). The invariant: nothing can be written through one that Open has made.
package loopdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Device is such a block device.
type Device struct {
	// Path of the block device, e.g. /dev/loop0.
	Path string
	file *os.File
}

// tries bounds the race for a free device with other programs.
const tries = 20

// Open shows size bytes of the file called path, from offset on, as a block device
// in dev, /dev on a machine; a size of 0 means up to the end. The device goes away by
// itself when it is closed here and mounted nowhere.
func Open(dev, path string, offset, size int64) (*Device, error) {
	return open(dev, path, os.O_RDONLY, unix.LoopInfo64{Offset: uint64(offset), Sizelimit: uint64(size), Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR})
}

// OpenWritable shows the whole of a block device as another one, which can be written
// and mounted although the kernel keeps the first from it.
func OpenWritable(dev, path string) (*Device, error) {
	d, err := open(dev, path, os.O_RDWR, unix.LoopInfo64{Flags: unix.LO_FLAGS_AUTOCLEAR})
	if err == nil {
		// Else each page would be in memory twice. Not all devices can; then it is.
		_ = unix.IoctlSetInt(int(d.file.Fd()), unix.LOOP_SET_DIRECT_IO, 1)
	}
	return d, err
}

func open(dev, path string, mode int, info unix.LoopInfo64) (*Device, error) {
	backing, err := os.OpenFile(path, mode, 0)
	if err != nil {
		return nil, fmt.Errorf("loop device: %w", err)
	}
	defer backing.Close()
	control, err := os.OpenFile(filepath.Join(dev, "loop-control"), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("loop device for %s: %w (is the module loop loaded?)", path, err)
	}
	defer control.Close()
	for range tries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("loop device for %s: no free one: %w", path, err)
		}
		name := filepath.Join(dev, fmt.Sprintf("loop%d", n))
		loop, err := os.OpenFile(name, mode, 0)
		if err != nil {
			return nil, fmt.Errorf("loop device for %s: %w", path, err)
		}
		err = set(int(loop.Fd()), int(backing.Fd()), info)
		if err == nil {
			return &Device{Path: name, file: loop}, nil
		}
		loop.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody was faster: ask again
			return nil, fmt.Errorf("loop device %s for %s: %w", name, path, err)
		}
	}
	return nil, fmt.Errorf("loop device for %s: %d free ones were taken before us", path, tries)
}

// set uses the two old requests: LOOP_CONFIGURE, which does both in one,
// is younger than some kernels that we boot.
func set(loop, backing int, info unix.LoopInfo64) error {
	if err := unix.IoctlSetInt(loop, unix.LOOP_SET_FD, backing); err != nil {
		return err
	}
	if err := unix.IoctlLoopSetStatus64(loop, &info); err != nil {
		return errors.Join(err, unix.IoctlSetInt(loop, unix.LOOP_CLR_FD, 0))
	}
	return nil
}

// Close gives the device back as soon as nothing is mounted from it.
func (l *Device) Close() error { return l.file.Close() }
