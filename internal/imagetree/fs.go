package imagetree

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"viver.lan/internal/exclude"
)

// maxRead bounds a file that ReadFile reads into memory, in bytes.
const maxRead = 1 << 30

// maxLinks bounds symbolic link chains, as the kernel does.
const maxLinks = 40

// resolve follows every symbolic link in name, seeing the tree's root as /.
func (t *Tree) resolve(name string) (string, error) {
	links := 0
	done, rest := ".", strings.Split(exclude.Clean(name), "/")
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		e, ok := t.entries[next]
		if !ok {
			return "", &fs.PathError{Op: "open", Path: "/" + name, Err: fs.ErrNotExist}
		}
		if e.Header.Typeflag != tar.TypeSymlink {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "open", Path: "/" + name, Err: errors.New("too many symbolic links")}
		}
		if strings.HasPrefix(e.Header.Linkname, "/") {
			done = "."
		}
		rest = append(strings.Split(e.Header.Linkname, "/"), rest...)
	}
	return done, nil
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
