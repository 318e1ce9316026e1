// Package newc reads the archives that the kernel unpacks as an initramfs: cpio in
// the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).
//
// u-root's pkg/cpio, which writes them in package bootfiles, has a reader too. It
// makes room for a name before it knows how long the archive is, and takes one that
// is cut off at a header as whole. The invariant of the one here: any bytes give
// members or an error, and an archive is whole when its trailer has come.
package newc

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Reader reads an archive, one member after the other.
type Reader struct {
	r    *bufio.Reader
	last Member
}

// Member is a file or directory in an archive.
type Member struct {
	Name string
	Mode uint32 // as stat(2) has it
	Size int64  // in bytes
	data *io.LimitedReader
}

// NewReader reads the archive that r begins with. If r is a bufio.Reader, what follows
// the archive's trailer is left in it.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReader(r)} }

// maxName is the longest name that the kernel takes (PATH_MAX).
const maxName = 4096

// Next returns the next member, and io.EOF after the last one.
func (a *Reader) Next() (Member, error) {
	if a.last.data != nil {
		rest := a.last.data.N + padding(a.last.Size)
		if _, err := io.CopyN(io.Discard, a.r, rest); err != nil {
			return Member{}, tooShort(err)
		}
	}
	const fields, digits = 13, 8
	var header [6 + fields*digits]byte
	if _, err := io.ReadFull(a.r, header[:]); err != nil {
		return Member{}, tooShort(err)
	}
	if magic := string(header[:6]); magic != "070701" {
		return Member{}, fmt.Errorf("a member begins with %q, want 070701", magic)
	}
	var values [fields]uint64
	for i := range values {
		var err error
		if values[i], err = strconv.ParseUint(string(header[6+i*digits:][:digits]), 16, 32); err != nil {
			return Member{}, fmt.Errorf("the header of a member: %w", err)
		}
	}
	mode, size, nameSize := values[1], int64(values[6]), int64(values[11])
	if nameSize < 2 || nameSize > maxName {
		return Member{}, fmt.Errorf("a name of %d bytes, want 2 to %d", nameSize, maxName)
	}
	name := make([]byte, nameSize+padding(int64(len(header))+nameSize))
	if _, err := io.ReadFull(a.r, name); err != nil {
		return Member{}, tooShort(err)
	}
	a.last = Member{string(name[:nameSize-1]), uint32(mode), size, &io.LimitedReader{R: a.r, N: size}}
	if a.last.Name == "TRAILER!!!" {
		return Member{}, io.EOF
	}
	return a.last, nil
}

// WriteTo implements io.WriterTo for the content, which can be had until the next
// member is.
func (m Member) WriteTo(w io.Writer) (int64, error) {
	n, err := io.CopyN(w, m.data, m.Size)
	return n, tooShort(err)
}

// Bytes returns the content, if it is not more than limit bytes.
func (m Member) Bytes(limit int64) ([]byte, error) {
	if m.Size > limit {
		return nil, fmt.Errorf("%s has %d bytes, want %d at most", m.Name, m.Size, limit)
	}
	var data bytes.Buffer
	_, err := m.WriteTo(&data)
	return data.Bytes(), err
}

// padding is how many bytes follow n of them up to a multiple of four.
func padding(n int64) int64 { return -n & 3 }

// tooShort says that an archive ends before its trailer.
func tooShort(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return errors.New("the archive ends too early")
	}
	return err
}
