package vfield

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"viver.lan/internal/metainfo"
)

// Dir is a payload that lies as files in an image directory, for example on a
// mounted boot medium.
type Dir struct {
	info  *metainfo.Info
	files []*os.File
}

// OpenDir opens the payload files below dir. A file that is missing or has
// another size is an error that names it.
func OpenDir(dir string, info *metainfo.Info) (*Dir, error) {
	d := &Dir{info: info}
	for _, f := range info.Files {
		file, err := os.Open(filepath.Join(dir, filepath.FromSlash(f.Name)))
		if err != nil {
			d.Close()
			return nil, fmt.Errorf("open image: %w", err)
		}
		d.files = append(d.files, file)
		st, err := file.Stat()
		if err == nil && st.Size() != f.Size {
			err = fmt.Errorf("%s has %d bytes, the metainfo says %d", file.Name(), st.Size(), f.Size)
		}
		if err != nil {
			d.Close()
			return nil, fmt.Errorf("open image: %w", err)
		}
	}
	return d, nil
}

// ReadAt implements io.ReaderAt over the payload.
func (d *Dir) ReadAt(p []byte, off int64) (n int, err error) {
	for i, f := range d.info.Files {
		if n == len(p) {
			return n, nil
		}
		if off >= f.Offset+f.Size {
			continue
		}
		want := p[n:min(int64(len(p)), int64(n)+f.Offset+f.Size-off)]
		got, err := d.files[i].ReadAt(want, off-f.Offset)
		n, off = n+got, off+int64(got)
		if got < len(want) {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Close gives the files up.
func (d *Dir) Close() error {
	var first error
	for _, f := range d.files {
		if err := f.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}
