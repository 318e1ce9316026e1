package runes

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
)

// Bounds of what one source of bundles may hold. The medium's FAT volume is
// far smaller; they stop a damaged or hostile source from using up the memory.
const (
	maxFiles = 4096
	maxBytes = 128 << 20
)

// Load reads every folder of fsys as a bundle. A folder that is no proper rune
// is reported and left out; the others are returned all the same. Files of
// fsys itself, and files that desktop systems leave there, are ignored.
func Load(fsys fs.FS) ([]Bundle, []error) {
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, []error{fmt.Errorf("read runes: %w", err)}
	}
	var bundles []Bundle
	var errs []error
	left := budget{files: maxFiles, bytes: maxBytes}
	for _, e := range entries {
		if !e.IsDir() || litter(e.Name()) {
			continue
		}
		b, err := loadFolder(fsys, e.Name(), &left)
		if err != nil {
			errs = append(errs, &BrokenError{e.Name(), err})
			continue
		}
		bundles = append(bundles, b)
	}
	return Merge(bundles), errs
}

func loadFolder(fsys fs.FS, folder string, left *budget) (Bundle, error) {
	tree := make(map[string]node)
	err := fs.WalkDir(fsys, folder, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name != folder && litter(d.Name()):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return nil
		}
		inside := strings.TrimPrefix(name, folder+"/")
		n, err := readNode(fsys, name, d, left)
		if err != nil {
			return fmt.Errorf("%s: %w", inside, err)
		}
		tree[inside] = n
		return nil
	})
	if err != nil {
		return Bundle{}, err
	}
	return newBundle(folder, tree)
}

func readNode(fsys fs.FS, name string, d fs.DirEntry, left *budget) (node, error) {
	switch {
	case len(name) > maxPath:
		return node{}, fmt.Errorf("a path of %d bytes; the limit is %d", len(name), maxPath)
	case d.Type()&fs.ModeSymlink != 0:
		link, err := fs.ReadLink(fsys, name)
		if err != nil {
			return node{}, err
		}
		return node{link: link}, left.take(0)
	case !d.Type().IsRegular():
		return node{}, fmt.Errorf("is a %s, want a file, a folder or a symbolic link", d.Type())
	}
	f, err := fsys.Open(name)
	if err != nil {
		return node{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return node{}, err
	}
	data, err := left.readAll(f)
	return node{exec: info.Mode()&0o100 != 0, data: data}, err
}

// litter reports whether a name is something that an operating system or an
// editor leaves on every stick it sees.
func litter(name string) bool {
	switch strings.ToLower(name) {
	case ".ds_store", ".fseventsd", ".spotlight-v100", ".trashes", "thumbs.db", "desktop.ini", "system volume information":
		return true
	}
	return strings.HasPrefix(name, "._") || strings.HasSuffix(name, "~")
}

// budget is what a source may still hold.
type budget struct {
	files int
	bytes int64
}

var errTooBig = fmt.Errorf("too much: the limit is %d files and %d MiB for all runes together", maxFiles, maxBytes>>20)

func (b *budget) take(n int64) error {
	b.files--
	b.bytes -= n
	if b.files < 0 || b.bytes < 0 {
		return errTooBig
	}
	return nil
}

// readAll reads r to its end without ever holding more than the budget.
func (b *budget) readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, b.bytes+1))
	return data, errors.Join(err, b.take(int64(len(data))))
}

// cleanName checks a path that came from outside.
func cleanName(name string) (string, error) {
	name = strings.TrimPrefix(name, "./")
	clean := path.Clean(name)
	if clean == "." {
		return clean, nil
	}
	if !fs.ValidPath(clean) || strings.TrimSuffix(name, "/") != clean || len(clean) > maxPath || strings.ContainsRune(clean, 0) {
		return "", fmt.Errorf("path %q is not a plain path below the archive", name)
	}
	return clean, nil
}
