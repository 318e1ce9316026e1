package imagesource

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// store is where the files of a container image lie: a directory or a tar archive. No
// name leads out of it.
type store interface {
	open(name string) (*io.SectionReader, error)
}

// dirStore is a directory. Its files stay open until all of them are closed.
type dirStore struct {
	root   *os.Root
	opened []*os.File
	files  []fs.FileInfo // that were opened, each once, whatever its names
	size   int64         // of these
}

func (d *dirStore) open(name string) (*io.SectionReader, error) {
	f, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would hold us up
	if err != nil {
		return nil, err
	}
	d.opened = append(d.opened, f)
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
	}
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(d.files, func(known fs.FileInfo) bool { return os.SameFile(known, fi) }) {
		d.files = append(d.files, fi)
		d.size += fi.Size()
	}
	return io.NewSectionReader(f, 0, fi.Size()), nil
}

// Close implements io.Closer.
func (d *dirStore) Close() error {
	errs := []error{d.root.Close()}
	for _, f := range d.opened {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// tarStore has the members of an archive by their names.
type tarStore map[string]packed

// packed is a stretch of an archive, or leads to another member.
type packed struct {
	data *io.SectionReader
	link string
}

func (t tarStore) open(name string) (*io.SectionReader, error) {
	const maxLinks = 4 // docker save had one, from a layer to an equal one
	for range maxLinks {
		p, ok := t[path.Clean(name)]
		if !ok {
			break
		}
		if p.link == "" {
			return io.NewSectionReader(p.data, 0, p.data.Size()), nil // an image may have one layer several times
		}
		name = p.link
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// maxMembers bounds what an archive of images can make us remember.
const maxMembers = 100000

// ofContainer are the names that an archive of container images has: those of an OCI layout
// and of docker save, with its directory for each layer.
var ofContainer = regexp.MustCompile(`^(oci-layout|index\.json|manifest\.json|repositories|blobs(/.*)?|[0-9a-f]{64}(\.json|\.tar|\.tar\.gz|/.*)?)$`)

// openTarStore indexes an archive. ok says that it is one of container images: an installed Linux
// has other names, the first of which ends the reading.
func openTarStore(ctx context.Context, data *io.SectionReader) (t tarStore, ok bool, err error) {
	t = make(tarStore)
	f := io.NewSectionReader(data, 0, data.Size())
	r := tar.NewReader(f)
	for {
		if err := ctx.Err(); err != nil {
			return nil, false, err
		}
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil && len(t) > 0 {
			return t, t.isContainer(), fmt.Errorf("read the archive: %w", wholeness(err))
		}
		if err != nil {
			return nil, false, nil // whoever reads it as a Linux says what is wrong
		}
		name := path.Clean(h.Name)
		if name == "." || h.Typeflag == tar.TypeDir && ofContainer.MatchString(name) {
			continue
		}
		if !ofContainer.MatchString(name) || len(t) >= maxMembers {
			return nil, false, nil
		}
		switch h.Typeflag {
		case tar.TypeReg:
			at, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, false, err
			}
			if h.Size > data.Size()-at {
				return t, t.isContainer(), fmt.Errorf("read the archive: %s: %w", name, errCutOff)
			}
			t[name] = packed{data: io.NewSectionReader(data, at, h.Size)}
		case tar.TypeSymlink:
			t[name] = packed{link: path.Join(path.Dir(name), h.Linkname)}
		case tar.TypeLink:
			t[name] = packed{link: path.Clean(h.Linkname)}
		}
	}
	return t, t.isContainer(), nil
}

// isContainer reports whether the archive names its images, or has so far as it goes what
// only such archives have.
func (t tarStore) isContainer() bool {
	for name := range t {
		if name == layoutFile || name == dockerFile || strings.HasPrefix(name, "blobs/") {
			return true
		}
	}
	return false
}

// wholeness says of an archive that was cut off that it was.
func wholeness(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errCutOff
	}
	return err
}
