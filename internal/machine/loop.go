package machine

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Loop is a part of a file or device that the kernel shows as a block device
// of its own, read-only (see loop(4)).
type Loop struct {
	// Path of the block device, e.g. /dev/loop0.
	Path string
	file *os.File
}

// loopTries bounds the race for a free device with other programs.
const loopTries = 20

// OpenLoop shows size bytes of the file called path, from offset on, as a block
// device; a size of 0 means up to the end. The device goes away by itself when
// it is closed here and mounted nowhere.
func (h Host) OpenLoop(path string, offset, size int64) (*Loop, error) {
	backing, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("loop device: %w", err)
	}
	defer backing.Close()
	control, err := os.OpenFile(h.Path("/dev/loop-control"), os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("loop device for %s: %w (is the module loop loaded?)", path, err)
	}
	defer control.Close()
	for range loopTries {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("loop device for %s: no free one: %w", path, err)
		}
		name := h.Path(fmt.Sprintf("/dev/loop%d", n))
		dev, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("loop device for %s: %w", path, err)
		}
		err = setLoop(int(dev.Fd()), int(backing.Fd()), offset, size)
		if err == nil {
			return &Loop{Path: name, file: dev}, nil
		}
		dev.Close()
		if !errors.Is(err, unix.EBUSY) { // somebody was faster: ask again
			return nil, fmt.Errorf("loop device %s for %s: %w", name, path, err)
		}
	}
	return nil, fmt.Errorf("loop device for %s: %d free ones were taken before us", path, loopTries)
}

// setLoop uses the two old requests: LOOP_CONFIGURE, which does both in one,
// is younger than some kernels that we boot.
func setLoop(dev, backing int, offset, size int64) error {
	if err := unix.IoctlSetInt(dev, unix.LOOP_SET_FD, backing); err != nil {
		return err
	}
	info := unix.LoopInfo64{Offset: uint64(offset), Sizelimit: uint64(size), Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR}
	if err := unix.IoctlLoopSetStatus64(dev, &info); err != nil {
		return errors.Join(err, unix.IoctlSetInt(dev, unix.LOOP_CLR_FD, 0))
	}
	return nil
}

// Close gives the device back as soon as nothing is mounted from it.
func (l *Loop) Close() error { return l.file.Close() }
