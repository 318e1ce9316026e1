package imagebuild

import (
	"archive/tar"
	"io"
	"slices"

	"viver.lan/internal/sparsetar"
)

// content is a regular file that was opened to be read.
type content struct {
	io.ReaderAt
	// header is the file's as it was opened: a live system's file may have
	// another size by then than when it was found.
	header tar.Header
	// segments are where the file has data, nil when it has no holes to speak of.
	segments []sparsetar.Segment
	close    func() error
	// changed reports whether the file was written to since it was opened.
	changed func() bool
	// isSteady says that it cannot change.
	isSteady bool
}

func (c *content) Close() error { return c.close() }

// whole reads the file from its first byte to its last, holes as zeros.
func (c *content) whole() io.Reader { return io.NewSectionReader(c, 0, c.header.Size) }

// stored reads what an archive holds of the file: without the holes.
func (c *content) stored() (io.Reader, int64) {
	if c.segments == nil {
		return c.whole(), c.header.Size
	}
	var parts []io.Reader
	for _, s := range c.segments {
		parts = append(parts, io.NewSectionReader(c, s.Offset, s.Length))
	}
	return io.MultiReader(parts...), sparsetar.Bytes(c.segments)
}

// steady is for content that cannot change.
func steady(h tar.Header, r io.ReaderAt) *content {
	return &content{ReaderAt: r, header: h, close: func() error { return nil }, changed: func() bool { return false }, isSteady: true}
}

// packed reads a file of which only the segments are stored, one behind another.
type packed struct {
	stored   io.ReaderAt
	segments []sparsetar.Segment
	at       []int64 // where each segment is stored
	size     int64
}

func newPacked(stored io.ReaderAt, at int64, segments []sparsetar.Segment, size int64) *packed {
	p := &packed{stored: stored, segments: segments, size: size}
	for _, s := range segments {
		p.at = append(p.at, at)
		at += s.Length
	}
	return p
}

// ReadAt implements io.ReaderAt.
func (p *packed) ReadAt(b []byte, off int64) (int, error) {
	n := int(min(int64(len(b)), max(p.size-off, 0)))
	clear(b[:n])
	end := off + int64(n)
	first, _ := slices.BinarySearchFunc(p.segments, off, func(s sparsetar.Segment, off int64) int {
		if s.End() <= off {
			return -1
		}
		return 1
	})
	for i, s := range p.segments[first:] {
		if s.Offset >= end {
			break
		}
		from, to := max(s.Offset, off), min(s.End(), end)
		if from >= to {
			continue
		}
		if _, err := p.stored.ReadAt(b[from-off:to-off], p.at[first+i]+from-s.Offset); err != nil {
			return 0, err
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}
