package control

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// File is one payload file, read through the block daemon. It streams: a read
// after another costs nothing extra, a read after a Seek a new request.
type File struct {
	ctx    context.Context // of the request that the file is read for
	client *Client
	name   string
	size   int64
	offset int64
	body   io.ReadCloser // nil until the first read at offset
}

// Open returns the payload file called name, whose size the manifest tells.
// Nothing is asked before the first read; ctx ends reads that wait.
func (c *Client) Open(ctx context.Context, name string, size int64) *File {
	return &File{ctx: ctx, client: c, name: name, size: size}
}

// Read implements io.Reader.
func (f *File) Read(p []byte) (int, error) {
	if f.offset >= f.size {
		return 0, io.EOF
	}
	if f.body == nil {
		body, err := f.client.readRange(f.ctx, f.name, f.offset, f.size-f.offset)
		if err != nil {
			return 0, err
		}
		f.body = body
	}
	n, err := f.body.Read(p)
	f.offset += int64(n)
	if errors.Is(err, io.EOF) && f.offset < f.size {
		err = fmt.Errorf("%s: %w at byte %d of %d", f.name, io.ErrUnexpectedEOF, f.offset, f.size)
	}
	return n, err
}

// Seek implements io.Seeker.
func (f *File) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += f.offset
	case io.SeekEnd:
		offset += f.size
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek %s to %d: before its start", f.name, offset)
	}
	if offset == f.offset {
		return offset, nil
	}
	err := f.Close()
	f.offset = offset
	return offset, err
}

// Close implements io.Closer.
func (f *File) Close() error {
	if f.body == nil {
		return nil
	}
	err := f.body.Close()
	f.body = nil
	return err
}
