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
	if s.read != nil {
		s.read(off, int64(len(p)))
	}
	return s.volume.ReadAt(ctx, p, s.offset+off)
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
