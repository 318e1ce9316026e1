// Package newc has the archives that the kernel unpacks as an initramfs: cpio in
// the "newc" format (Documentation/driver-api/early-userspace/buffer-format.rst).
//
// It writes them by u-root's pkg/cpio. It reads only the first archive of a file,
// of which the caller has the first bytes: u-root's reader makes room for a name
// before it knows how long the archive is, and takes one that is cut off at a
// header as whole.
package newc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// Writer writes an archive. Owners are root and times are zero, so equal content
// gives equal bytes.
type Writer struct {
	out     *padder
	records cpio.RecordWriter // writes no name twice
}

// NewWriter begins an archive.
func NewWriter(w io.Writer) *Writer {
	out := &padder{w: w}
	return &Writer{out: out, records: cpio.Newc.Writer(out)}
}

// File adds a regular file, and the directories it lies in, each of them once.
func (w *Writer) File(name string, data []byte) error {
	for at := range name {
		if strings.HasPrefix(name[at:], "/") {
			if err := w.records.WriteRecord(cpio.Directory(name[:at], 0o755)); err != nil {
				return err
			}
		}
	}
	return w.records.WriteRecord(cpio.StaticRecord(data, cpio.Info{Name: name, Mode: cpio.S_IFREG | 0o644}))
}

// Close finishes the archive, so that another one may follow it.
func (w *Writer) Close() error {
	if err := cpio.WriteTrailer(w.records); err != nil {
		return err
	}
	return w.out.pad()
}

// Copy copies a whole archive, so that another one may follow it.
func Copy(w io.Writer, archive io.Reader) error {
	out := &padder{w: w}
	if _, err := io.Copy(out, archive); err != nil {
		return err
	}
	return out.pad()
}

// padder can fill what was written up to a multiple of 512 bytes.
type padder struct {
	w  io.Writer
	at int64
}

func (p *padder) Write(b []byte) (int, error) {
	n, err := p.w.Write(b)
	p.at += int64(n)
	return n, err
}

func (p *padder) pad() error {
	_, err := p.Write(make([]byte, -p.at&511))
	return err
}

// First returns the content of a file in the archive that data begins with.
func First(data []byte, name string) ([]byte, error) {
	const headerSize = 110
	for len(data) >= headerSize && bytes.HasPrefix(data, []byte("070701")) {
		field := func(i int) (uint64, error) { return strconv.ParseUint(string(data[6+8*i:14+8*i]), 16, 32) }
		size, err := field(6)
		if err != nil {
			return nil, fmt.Errorf("a damaged archive: %w", err)
		}
		nameSize, err := field(11)
		if err != nil {
			return nil, fmt.Errorf("a damaged archive: %w", err)
		}
		at := (headerSize + nameSize + 3) &^ 3
		next := (at + size + 3) &^ 3
		if nameSize == 0 || next > uint64(len(data)) {
			break
		}
		switch found := string(data[headerSize : headerSize+nameSize-1]); found {
		case name:
			return data[at : at+size], nil
		case cpio.Trailer:
			return nil, errors.New("no " + name)
		}
		data = data[next:]
	}
	return nil, errors.New("it does not begin with an archive that has " + name)
}
