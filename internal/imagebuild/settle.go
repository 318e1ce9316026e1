package imagebuild

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/media"
	"viver.lan/internal/sign"
)

// A file that is written to while it is read is half of one time and half of
// another. So files of up to smallFile bytes are read whole before they are
// written, and larger ones that were written to within lately are copied first,
// up to maxSpool bytes; those that changed meanwhile are read a second time. The
// others are only compared with what they were, and reported.
const (
	smallFile = 1 << 20
	maxSpool  = 512 << 20
	lately    = 10 * time.Minute
)

// settled opens a file; nil when there is none any more.
func (s *tarStream) settled(name string, open func() (*content, error)) (*content, error) {
	c, whole, err := s.attempt(open)
	if err == nil && !whole {
		if err = c.Close(); err == nil {
			c, whole, err = s.attempt(open)
		}
	}
	what := ""
	switch {
	case errors.Is(err, fs.ErrNotExist):
		what = ": left out, it went away"
	case errors.Is(err, errNoFile) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EXDEV):
		what = ": left out, it became something else"
	case err != nil:
		return nil, err
	case !whole:
		what = ": what it holds may be of two times"
	}
	if what != "" {
		s.tree.report.change(fileChanged, name+what, 0)
	}
	if err != nil {
		return nil, nil
	}
	return c, nil
}

// attempt opens a file and takes a copy of one that may change; whole says that
// it did not until then.
func (s *tarStream) attempt(open func() (*content, error)) (c *content, whole bool, err error) {
	if c, err = open(); err != nil {
		return nil, false, err
	}
	h := c.header
	recent := time.Since(h.ModTime) < lately && h.Size <= maxSpool
	switch {
	case c.segments != nil || c.isSteady:
		return c, true, nil
	case h.Size <= smallFile:
		return s.buffered(c)
	case recent:
		f, err := os.CreateTemp(s.tree.spool, ".copy*")
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
func (s *tarStream) buffered(c *content) (*content, bool, error) {
	if s.buffer == nil {
		s.buffer = make([]byte, smallFile)
	}
	n, err := readUpTo(c.whole(), s.buffer[:c.header.Size])
	h, whole := c.header, int64(n) == c.header.Size && !c.changed()
	if err = errors.Join(err, c.Close()); err != nil {
		return nil, false, err
	}
	h.Size = int64(n)
	return steady(h, bytes.NewReader(s.buffer[:n])), whole, nil
}

// copied copies a file to another, which is closed with the content.
func (s *tarStream) copied(c *content, to *os.File) (*content, bool, error) {
	n, err := io.Copy(to, &interruptible{s.ctx, c.whole()})
	h, whole := c.header, n == c.header.Size && !c.changed()
	if err = errors.Join(err, c.Close()); err != nil {
		return nil, false, errors.Join(err, to.Close())
	}
	h.Size = n
	c = steady(h, to)
	c.close = to.Close
	return c, whole, nil
}

// swapMarks stand at the end of the first page of swap space: of mkswap(8), and
// of what the ways to hibernate put in their place.
var swapMarks = []string{"SWAPSPACE2", "SWAP-SPACE", "S1SUSPEND\x00", "S2SUSPEND\x00", "ULSUSPEND\x00", "LINHIB0001"}

// byContent returns the rule by which a file stays out that its bytes show, nil
// when it travels.
func (s *tarStream) byContent(name string, c *content) *rule {
	var found *rule
	if isSwap(c) {
		found = swapSpace
	} else if c.header.Size >= settingsSize {
		if label, err := media.ISOLabel(c); err == nil && label == media.Label {
			found = ownOutput
		}
	}
	if !s.tree.rules.applies(found, name) {
		return nil
	}
	return found
}

func isSwap(c *content) bool {
	const smallest, largestPage = 10 * 4096, 64 << 10
	if c.header.Size < smallest {
		return false
	}
	for page := int64(4096); page <= min(largestPage, c.header.Size); page *= 2 {
		var mark [10]byte
		if _, err := c.ReadAt(mark[:], page-int64(len(mark))); err == nil && slices.Contains(swapMarks, string(mark[:])) {
			return true
		}
	}
	return false
}

// isKey reports whether a file is a key that signs images. The image goes to
// everyone on the network, and may be built from the very machine where the key
// lies.
func isKey(c *content) (bool, error) {
	if c.header.Size > sign.MaxKeySize {
		return false, nil
	}
	data, err := io.ReadAll(c.whole())
	return err == nil && sign.IsPrivateKey(data), err
}

// outlast runs do and returns when it ends, or within grace after ctx does: a
// read from a dead network disk is no reason to stay.
func outlast(ctx context.Context, grace time.Duration, do func() error) error {
	done := make(chan error, 1)
	go func() { done <- do() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(grace):
		return ctx.Err()
	}
}
