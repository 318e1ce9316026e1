package rootfs

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/imagetree"
)

// The copy of a file that is written to while it is read mixes old and new. So files
// of up to smallFile bytes are read whole before they go into the stream, and larger
// ones that changed recently are copied first, up to maxSpool bytes; when one changed
// meanwhile, it is read a second time. The others are only compared with what they
// were, and reported.
const (
	smallFile = 1 << 20
	maxSpool  = 512 << 20
	recently  = 10 * time.Minute
)

// openStable opens a file; nil when there is none any more.
func (s *tarStream) openStable(name string, open func() (*imagetree.Content, error)) (*imagetree.Content, error) {
	c, whole, err := s.openOnce(open)
	if err == nil && !whole {
		if err = c.Close(); err == nil {
			c, whole, err = s.openOnce(open)
		}
	}
	what := ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		what = ": left out, it went away"
	case errors.Is(err, imagetree.ErrNoFile) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EXDEV):
		what = ": left out, it became something else"
	case err != nil:
		return nil, err
	case !whole:
		what = ": its content may mix old and new"
	}
	if what != "" {
		s.tree.Report.Changed(imagetree.FileChanged, name+what, 0)
	}
	if err != nil {
		return nil, nil
	}
	return c, nil
}

// openOnce opens a file and takes a copy of one that may change; whole says that
// it did not until then.
func (s *tarStream) openOnce(open func() (*imagetree.Content, error)) (c *imagetree.Content, whole bool, err error) {
	if c, err = open(); err != nil {
		return nil, false, err
	}
	h := c.Header
	recent := time.Since(h.ModTime) < recently && h.Size <= maxSpool
	switch {
	case c.Segments != nil || c.IsStable():
		return c, true, nil
	case h.Size <= smallFile:
		return s.buffered(c)
	case recent:
		f, err := os.CreateTemp(s.spool, ".copy*")
		if err != nil {
			return nil, false, errors.Join(err, c.Close())
		}
		if err := os.Remove(f.Name()); err != nil {
			return nil, false, errors.Join(err, f.Close(), c.Close())
		}
		return s.copied(c, f)
	}
	return c, true, nil
}

// buffered reads a small file into memory that the next one reuses.
func (s *tarStream) buffered(c *imagetree.Content) (*imagetree.Content, bool, error) {
	if s.buffer == nil {
		s.buffer = make([]byte, smallFile)
	}
	n, err := io.ReadFull(c.Whole(), s.buffer[:c.Header.Size])
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // it shrank
		err = nil
	}
	h, whole := c.Header, int64(n) == c.Header.Size && !c.Changed()
	if err = errors.Join(err, c.Close()); err != nil {
		return nil, false, err
	}
	h.Size = int64(n)
	return imagetree.Stable(h, bytes.NewReader(s.buffer[:n]), nil), whole, nil
}

// copied copies a file to another, which is closed with the content.
func (s *tarStream) copied(c *imagetree.Content, to *os.File) (*imagetree.Content, bool, error) {
	n, err := io.Copy(to, &interruptible{s.ctx, c.Whole()})
	h, whole := c.Header, n == c.Header.Size && !c.Changed()
	if err = errors.Join(err, c.Close()); err != nil {
		return nil, false, errors.Join(err, to.Close())
	}
	h.Size = n
	return imagetree.Stable(h, to, to.Close), whole, nil
}
