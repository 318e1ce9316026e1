package machine

import "viver.lan/internal/loopdev"

// OpenLoop is loopdev.Open on this machine.
func (h Host) OpenLoop(path string, offset, size int64) (*loopdev.Device, error) {
	return loopdev.Open(h.Path("/dev"), path, offset, size)
}
