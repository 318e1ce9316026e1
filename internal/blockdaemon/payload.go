package blockdaemon

import (
	"context"

	"viver.lan/internal/vfield"
)

// section is one file of the payload, as an nbd.Backend.
type section struct {
	volume       *vfield.Volume
	offset, size int64
	read         func(offset, length int64) // is told of each read, unless nil
}

// ReadAt implements nbd.Backend.
func (s section) ReadAt(ctx context.Context, p []byte, off int64) error {
	s.note(p, off)
	return s.volume.ReadAt(ctx, p, s.offset+off)
}

// here is nbd.Options.Here for pieces in memory. Those on a cache disk may take their time,
// or for ever: each of their reads has a goroutine of its own, and is reported.
func (s section) here(cache string) func(p []byte, off int64) bool {
	if cache != "" {
		return nil
	}
	return s.readHere
}

func (s section) readHere(p []byte, off int64) bool {
	if s.volume.ReadHere(p, s.offset+off) != nil {
		return false
	}
	s.note(p, off)
	return true
}

func (s section) note(p []byte, off int64) {
	if s.read != nil {
		s.read(off, int64(len(p)))
	}
}

// Size implements nbd.Backend.
func (s section) Size() int64 { return s.size }

// readerAt reads the volume for one request.
type readerAt struct {
	ctx    context.Context
	volume *vfield.Volume
}

// ReadAt implements io.ReaderAt, within the volume only.
func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	if err := r.volume.ReadAt(r.ctx, p, off); err != nil {
		return 0, err
	}
	return len(p), nil
}
