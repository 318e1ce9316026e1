package imagebuild

import (
	"io"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// cpioWriter writes an archive in the "newc" format, the only one the kernel
// unpacks (Documentation/driver-api/early-userspace/buffer-format.rst). Owners
// are root and times are zero, so equal content gives equal bytes.
type cpioWriter struct {
	out     *padder
	records cpio.RecordWriter // writes no name twice
}

func newCPIOWriter(w io.Writer) *cpioWriter {
	out := &padder{w: w}
	return &cpioWriter{out: out, records: cpio.Newc.Writer(out)}
}

// file adds a regular file, and the directories it lies in, each of them once.
func (c *cpioWriter) file(name string, data []byte) error {
	for at := range name {
		if strings.HasPrefix(name[at:], "/") {
			if err := c.records.WriteRecord(cpio.Directory(name[:at], 0o755)); err != nil {
				return err
			}
		}
	}
	return c.records.WriteRecord(cpio.StaticRecord(data, cpio.Info{Name: name, Mode: cpio.S_IFREG | 0o644}))
}

// end finishes the archive, so that another one may follow it.
func (c *cpioWriter) end() error {
	if err := cpio.WriteTrailer(c.records); err != nil {
		return err
	}
	return c.out.pad()
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
