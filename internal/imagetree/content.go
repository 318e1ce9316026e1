package imagetree

import (
	"archive/tar"
	"io"
	"slices"

	"viver.lan/internal/sparsetar"
)

// Content is a regular file that was opened to be read.
type Content struct {
	io.ReaderAt
	// Header is the file's as it was opened: a live system's file may have
	// another size by then than when it was found.
	Header tar.Header
	// Segments are where the file has data, nil when it has no holes to speak of.
	Segments []sparsetar.Segment
	close    func() error
	// changed reports whether the file was written to since it was opened; nil for
	// what cannot change.
	changed func() bool
}

// Close implements io.Closer.
func (c *Content) Close() error {
	if c.close == nil {
		return nil
	}
	return c.close()
}

// IsStable reports whether the content cannot change while it is read.
func (c *Content) IsStable() bool { return c.changed == nil }

// Changed reports whether the file was written to since it was opened.
func (c *Content) Changed() bool { return c.changed != nil && c.changed() }

// Whole reads the file from its first byte to its last, holes as zeros.
func (c *Content) Whole() io.Reader { return io.NewSectionReader(c, 0, c.Header.Size) }

// Stored reads what an archive holds of the file: without the holes.
func (c *Content) Stored() (io.Reader, int64) {
	if c.Segments == nil {
		return c.Whole(), c.Header.Size
	}
	var parts []io.Reader
	for _, s := range c.Segments {
		parts = append(parts, io.NewSectionReader(c, s.Offset, s.Length))
	}
	return io.MultiReader(parts...), sparsetar.Bytes(c.Segments)
}

// Stable is for content that cannot change; close may be nil.
func Stable(h tar.Header, r io.ReaderAt, close func() error) *Content {
	return &Content{ReaderAt: r, Header: h, close: close}
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
