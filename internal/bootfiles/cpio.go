package bootfiles

import (
	"io"
	"strings"

	"github.com/u-root/u-root/pkg/cpio"
)

// archive writes a cpio archive in the "newc" format. Owners are root and times are zero, so equal content
// gives equal bytes.
type archive struct {
	out     *padder
	records cpio.RecordWriter // writes no name twice
}

func newArchive(w io.Writer) *archive {
	out := &padder{w: w}
	return &archive{out: out, records: cpio.Newc.Writer(out)}
}

// file adds a regular file, and the directories it lies in, each of them once.
func (a *archive) file(name string, data []byte) error {
	for at := range name {
		if strings.HasPrefix(name[at:], "/") {
			if err := a.records.WriteRecord(cpio.Directory(name[:at], 0o755)); err != nil {
				return err
			}
		}
	}
	return a.records.WriteRecord(cpio.StaticRecord(data, cpio.Info{Name: name, Mode: cpio.S_IFREG | 0o644}))
}

// close finishes the archive, so that another one may follow it.
func (a *archive) close() error {
	if err := cpio.WriteTrailer(a.records); err != nil {
		return err
	}
	return a.out.pad()
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
