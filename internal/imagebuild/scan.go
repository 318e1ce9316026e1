package imagebuild

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Scan indexes the tree at source: a directory (also "/") or an uncompressed
// tar archive. skip lists host paths that are not part of the tree, such as the
// image being written.
func Scan(ctx context.Context, source string, skip ...string) (*Tree, error) {
	fi, err := os.Stat(source)
	if err != nil {
		return nil, fmt.Errorf("source: %w", err)
	}
	var t *Tree
	if fi.IsDir() {
		t, err = scanDir(ctx, source, skip)
	} else {
		t, err = scanTar(ctx, source)
	}
	if err != nil {
		return nil, fmt.Errorf("source %s: %w", source, err)
	}
	return t, nil
}

// xattrNames are the classes of extended attributes a squashfs can hold.
var xattrNames = []string{"user.", "trusted.", "security."}

// paxXattr is how tar archives spell an extended attribute.
const paxXattr = "SCHILY.xattr."

func scanDir(ctx context.Context, dir string, skip []string) (*Tree, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, err
	}
	foreign, err := foreignMounts(dir)
	if err != nil {
		return nil, err
	}
	s := dirScan{
		tree:    newTree(dir),
		root:    dir,
		skip:    make(map[string]bool),
		foreign: foreign,
		seen:    make(map[inode]string),
		uid:     -1,
		gid:     -1,
	}
	// An ordinary user owns all files of a tree he made; in the image they are
	// root's. Trees with several owners come as a tar archive.
	if os.Geteuid() != 0 {
		s.uid, s.gid = os.Geteuid(), os.Getegid()
	}
	for _, p := range skip {
		if abs, err := filepath.Abs(p); err == nil {
			s.skip[abs] = true
		}
	}
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return s.visit(p, d, err)
	})
	if err != nil {
		return nil, err
	}
	if len(s.unreadable) > 0 {
		return nil, fmt.Errorf("%d files cannot be read, the first is %w; run as root, or build from a tar archive", len(s.unreadable), s.unreadable[0])
	}
	s.tree.seal()
	return s.tree, nil
}

type inode struct{ dev, ino uint64 }

type dirScan struct {
	tree       *Tree
	root       string
	skip       map[string]bool
	foreign    map[string]string // mount point -> file system type
	seen       map[inode]string  // hard links
	uid, gid   int               // become root's; -1 when owners are kept
	unreadable []error
}

func (s *dirScan) visit(p string, d fs.DirEntry, err error) error {
	rel, relErr := filepath.Rel(s.root, p)
	if relErr != nil {
		return relErr
	}
	if s.skip[p] || leftOut(rel) {
		return skipEntry(d)
	}
	if errors.Is(err, fs.ErrNotExist) { // a live system changes while it is read
		return nil
	}
	if err != nil {
		s.unreadable = append(s.unreadable, err)
		return skipEntry(d)
	}
	fi, err := d.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	e, err := s.entry(p, rel, fi)
	if err != nil {
		s.unreadable = append(s.unreadable, err)
		return skipEntry(d)
	}
	if e == nil {
		return nil
	}
	s.tree.add(rel, e)
	if kind, ok := s.foreign[p]; ok && d.IsDir() && rel != "." {
		s.tree.note("left out what is mounted on /%s (%s)", rel, kind)
		return fs.SkipDir
	}
	return nil
}

func skipEntry(d fs.DirEntry) error {
	if d != nil && d.IsDir() {
		return fs.SkipDir
	}
	return nil
}

// entry describes one file; nil for what an image cannot hold.
func (s *dirScan) entry(p, rel string, fi fs.FileInfo) (*entry, error) {
	if fi.Mode()&fs.ModeSocket != 0 {
		return nil, nil
	}
	var link string
	var err error
	if fi.Mode()&fs.ModeSymlink != 0 {
		if link, err = os.Readlink(p); err != nil {
			return nil, err
		}
	}
	h, err := tar.FileInfoHeader(fi, link)
	if err != nil {
		return nil, err
	}
	h.Name = rel
	h.Uname, h.Gname = "", "" // names of this host mean nothing in the image
	if h.Uid == s.uid {
		h.Uid = 0
	}
	if h.Gid == s.gid {
		h.Gid = 0
	}
	if h.PAXRecords, err = readXattrs(p); err != nil {
		return nil, err
	}
	e := &entry{header: *h}
	if !fi.Mode().IsRegular() {
		return e, nil
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok && st.Nlink > 1 {
		id := inode{st.Dev, st.Ino}
		if first, ok := s.seen[id]; ok {
			e.header.Typeflag, e.header.Linkname, e.header.Size = tar.TypeLink, first, 0
			return e, nil
		}
		s.seen[id] = rel
	}
	if err := unix.Access(p, unix.R_OK); err != nil {
		return nil, &fs.PathError{Op: "open", Path: p, Err: err}
	}
	e.open = func() (io.ReadCloser, error) { return os.Open(p) }
	return e, nil
}

func readXattrs(p string) (map[string]string, error) {
	var buf [4096]byte
	n, err := unix.Llistxattr(p, buf[:])
	if err == unix.ENOTSUP || n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, &fs.PathError{Op: "llistxattr", Path: p, Err: err}
	}
	records := make(map[string]string)
	for _, name := range strings.Split(strings.TrimRight(string(buf[:n]), "\x00"), "\x00") {
		for _, class := range xattrNames {
			if !strings.HasPrefix(name, class) {
				continue
			}
			value := make([]byte, 65536)
			n, err := unix.Lgetxattr(p, name, value)
			if err != nil {
				return nil, &fs.PathError{Op: "lgetxattr " + name, Path: p, Err: err}
			}
			records[paxXattr+name] = string(value[:n])
		}
	}
	return records, nil
}

func scanTar(ctx context.Context, name string) (*Tree, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	t := newTree(name)
	t.close = f.Close
	if err := t.indexTar(ctx, f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if t.entries["."] == nil {
		t.add(".", plainDir("."))
	}
	t.seal()
	return t, nil
}

var errTar = errors.New("not a whole, uncompressed tar archive")

func (t *Tree) indexTar(ctx context.Context, f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	r := tar.NewReader(f)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := r.Next()
		if err == io.EOF {
			return tarEnds(f)
		}
		if err != nil {
			return fmt.Errorf("%w: %w", errTar, err)
		}
		// The reader takes exactly the header, so the file stands at the data.
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeReg && h.Size > fi.Size()-at {
			return fmt.Errorf("%w: it ends within %s", errTar, h.Name)
		}
		t.addTar(h, f, at)
	}
}

// tarEnds checks for the two blocks of zeros that end an archive: package tar
// also takes one that was cut off between two members.
func tarEnds(f *os.File) error {
	var end [1024]byte
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if at >= int64(len(end)) {
		if _, err := f.ReadAt(end[:], at-int64(len(end))); err != nil {
			return err
		}
		if end == [len(end)]byte{} {
			return nil
		}
	}
	return fmt.Errorf("%w: its end is missing", errTar)
}

// addTar adds one member whose content begins at offset at of f.
func (t *Tree) addTar(h *tar.Header, f io.ReaderAt, at int64) {
	name := clean(h.Name)
	e := &entry{header: *h}
	e.header.Name = name
	e.header.Uname, e.header.Gname = "", ""
	e.header.Format = tar.FormatUnknown
	e.header.PAXRecords = nil
	for k, v := range h.PAXRecords {
		for _, class := range xattrNames {
			if strings.HasPrefix(k, paxXattr+class) {
				if e.header.PAXRecords == nil {
					e.header.PAXRecords = make(map[string]string)
				}
				e.header.PAXRecords[k] = v
			}
		}
	}
	switch h.Typeflag {
	case tar.TypeReg:
		size := h.Size
		e.open = func() (io.ReadCloser, error) {
			return io.NopCloser(io.NewSectionReader(f, at, size)), nil
		}
	case tar.TypeLink:
		e.header.Linkname = clean(h.Linkname)
	case tar.TypeDir, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
	default:
		t.note("left out /%s: a tar member of type %q", name, h.Typeflag)
		return
	}
	for p := name; p != "."; p = path.Dir(p) {
		if leftOut(p) {
			t.hidden[name] = e
			return
		}
	}
	t.add(name, e)
}
