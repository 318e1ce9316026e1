package machine

import "viver.lan/internal/loopdev"

// OpenLoop is loopdev.Open on this machine.
func (h Host) OpenLoop(path string, offset, size int64) (*loopdev.Device, error) {
	return loopdev.Open(h.Path("/dev"), path, offset, size)
}

// Loop shows a block device as another one, as loopdev.OpenWritable or, read-only,
// loopdev.Open does. What is mounted from it stays when it is released.
func (h Host) Loop(path string, write bool) (device string, release func() error, err error) {
	var d *loopdev.Device
	if write {
		d, err = loopdev.OpenWritable(h.Path("/dev"), path)
	} else {
		d, err = loopdev.Open(h.Path("/dev"), path, 0, 0)
	}
	if err != nil {
		return "", nil, err
	}
	return d.Path, d.Close, nil
}
