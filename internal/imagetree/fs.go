package imagetree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"viver.lan/internal/exclude"
	"viver.lan/internal/rootpath"
)

// maxRead bounds a file that ReadFile reads into memory, in bytes.
const maxRead = 1 << 30

// resolve follows every symbolic link in name, seeing the tree's root as /.
func (t *Tree) resolve(name string) (string, error) {
	real, err := rootpath.Resolve(name, func(name string) (string, error) {
		if e := t.entries[exclude.Clean(name)]; e != nil && e.Header.Typeflag == tar.TypeSymlink {
			return e.Header.Linkname, nil
		}
		return "", fs.ErrNotExist
	})
	return exclude.Clean(real), err
}

// lookup returns the entry that name leads to, through links of both kinds.
func (t *Tree) lookup(name string) (*Entry, error) {
	real, err := t.resolve(name)
	if err != nil {
		return nil, err
	}
	e := t.entries[real]
	if e != nil && e.Header.Typeflag == tar.TypeLink {
		e = t.Target(e)
	}
	if e == nil {
		return nil, &fs.PathError{Op: "open", Path: "/" + name, Err: fs.ErrNotExist}
	}
	return e, nil
}

// content opens a regular file.
func (t *Tree) content(name string) (*Content, error) {
	e, err := t.lookup(name)
	if err != nil {
		return nil, err
	}
	if e.Open == nil {
		return nil, &fs.PathError{Op: "open", Path: "/" + name, Err: errors.New("not a regular file")}
	}
	return e.Open()
}

// Open implements fs.FS, for regular files only: ReadDir is for directories.
// Symbolic links are followed, and see the tree's root as /.
func (t *Tree) Open(name string) (fs.File, error) {
	c, err := t.content(name)
	if err != nil {
		return nil, err
	}
	return openFile{io.NewSectionReader(c, 0, c.Header.Size), c}, nil
}

type openFile struct {
	*io.SectionReader
	content *Content
}

func (f openFile) Stat() (fs.FileInfo, error) { return f.content.Header.FileInfo(), nil }
func (f openFile) Close() error               { return f.content.Close() }

// ReadFile implements fs.ReadFileFS.
func (t *Tree) ReadFile(name string) ([]byte, error) {
	c, err := t.content(name)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if c.Header.Size > maxRead {
		return nil, fmt.Errorf("read /%s: it has %d bytes", name, c.Header.Size)
	}
	data, err := io.ReadAll(c.Whole())
	if err != nil {
		return nil, fmt.Errorf("read /%s: %w", name, err)
	}
	return data, nil
}

// Stat implements fs.StatFS.
func (t *Tree) Stat(name string) (fs.FileInfo, error) {
	e, err := t.lookup(name)
	if err != nil {
		return nil, err
	}
	return e.Header.FileInfo(), nil
}

// ReadDir implements fs.ReadDirFS.
func (t *Tree) ReadDir(name string) ([]fs.DirEntry, error) {
	real, err := t.resolve(name)
	if err == nil && t.entries[real] == nil {
		err = &fs.PathError{Op: "open", Path: "/" + name, Err: fs.ErrNotExist}
	}
	if err != nil {
		return nil, err
	}
	var list []fs.DirEntry
	for _, child := range t.children[real] {
		e := t.entries[path.Join(real, child)]
		list = append(list, fs.FileInfoToDirEntry(e.Header.FileInfo()))
	}
	return list, nil
}
