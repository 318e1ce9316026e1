// Package squashmap tells what a squashfs has: its names, what is said of each file, where
// in it the content of each lies, and what that is.
//
// It reads a file system of version 4.0 that is compressed by
// zstd or not at all, as mksquashfs makes it for images (Documentation/filesystems/
// squashfs.rst of Linux, and squashfs_fs.h there). No Go library
// for squashfs tells places: diskfs/go-diskfs reads content only. The invariant: any bytes give
// a list of files or an error, in time and memory that do not exceed its bounds by what
// they say.
package squashmap

import "io"

// maxItems bounds the names and data blocks of a file system: 2 TiB in blocks of 128 KiB.
const maxItems = 1 << 24

// maxPath bounds a path, in bytes, and so how deep directories are nested: no program can
// open a longer one (PATH_MAX of Linux).
const maxPath = 4096

// Extent is a part of the file system's bytes.
type Extent struct {
	Offset, Length int64
}

// File is a regular file that has content.
type File struct {
	// Path from the root, without a slash before it; any bytes but 0. A file with
	// several names is listed once, under the first one in directory order.
	Path string
	// Blocks are those with the file's content, in its order; what is a hole has none. A
	// block is read as a whole.
	Blocks []Extent
	// Fragment reports that the last block has content of other files, too.
	Fragment bool
}

// Kind is what a name stands for.
type Kind int

// The kinds.
const (
	Other Kind = iota // a device, a pipe, a socket
	Dir
	Regular
	Link
)

// Entry is a name in a directory.
type Entry struct {
	Path   string // as that of a File
	Kind   Kind
	Target string // of a link; any bytes but 0
}

// Read lists the files of a squashfs of size bytes, in directory order.
func Read(r io.ReaderAt, size int64) ([]File, error) {
	fs, err := Open(r, size)
	if err != nil {
		return nil, err
	}
	defer fs.Close()
	var files []File
	seen := make(map[*Inode]bool)
	for name, in := range fs.All() {
		if in.Type != TypeFile || seen[in] {
			continue
		}
		seen[in] = true
		f := File{Path: name, Blocks: in.extents()}
		if in.Fragment != None {
			f.Blocks, f.Fragment = append(f.Blocks, fs.fragments[in.Fragment].Extent()), true
		}
		if len(f.Blocks) > 0 {
			files = append(files, f)
		}
	}
	return files, nil
}

// List lists all names of a squashfs of size bytes, in directory order.
func List(r io.ReaderAt, size int64) ([]Entry, error) {
	fs, err := Open(r, size)
	if err != nil {
		return nil, err
	}
	defer fs.Close()
	var entries []Entry
	for name, in := range fs.All() {
		e := Entry{Path: name, Target: in.Target}
		switch in.Type {
		case TypeDir:
			e.Kind = Dir
		case TypeFile:
			e.Kind = Regular
		case TypeLink:
			e.Kind = Link
		}
		entries = append(entries, e)
	}
	return entries, nil
}
