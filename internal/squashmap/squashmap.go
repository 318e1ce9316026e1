// Package squashmap tells which names a squashfs has, and where in it the content of each
// file lies.
//
// It reads the tables of a file system of version 4.0 whose metadata is compressed by
// zstd or not at all, as mksquashfs makes it for images (Documentation/filesystems/
// squashfs.rst of Linux, and squashfs_fs.h there). It does not read the files. No Go library
// for squashfs tells places: diskfs/go-diskfs reads content only. The invariant: any bytes give
// a list of files or an error, in time and memory that do not exceed its bounds by what
// they say.
package squashmap

import (
	"errors"
	"fmt"
	"io"
	"math"
	"path"
)

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
	w, err := read(r, size)
	return w.files, err
}

// List lists all names of a squashfs of size bytes, in directory order.
func List(r io.ReaderAt, size int64) ([]Entry, error) {
	w, err := read(r, size)
	return w.entries, err
}

func read(r io.ReaderAt, size int64) (walk, error) {
	w, err := newWalk(r, size)
	if err == nil {
		defer w.tables.close()
		err = w.visit(w.super.rootInode, "")
	}
	if err != nil {
		return walk{}, fmt.Errorf("read squashfs: %w", err)
	}
	return *w, nil
}

func newWalk(r io.ReaderAt, size int64) (*walk, error) {
	buf := make([]byte, min(size, superblockSize))
	if _, err := r.ReadAt(buf, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	super, err := parseSuperblock(buf)
	if err != nil {
		return nil, err
	}
	if super.bytesUsed > size {
		return nil, fmt.Errorf("it has %d bytes of %d: it is cut off", size, super.bytesUsed)
	}
	tables, err := newTables(r, super)
	if err != nil {
		return nil, err
	}
	return &walk{tables: tables, super: super, seen: make(map[uint64]bool), left: maxItems}, nil
}

// walk goes through directories.
type walk struct {
	tables *tables
	super  superblock
	seen   map[uint64]bool // inodes, by their place in the table
	files  []File
	// entries has each name, also the second one of a file.
	entries []Entry
	left    int // items that may still be read
}

// visit reads an inode and what is below it.
func (w *walk) visit(inode uint64, name string) error {
	if len(name) > maxPath {
		return errors.New("directories are nested too deep")
	}
	s := w.tables.stream(w.super.inodeTable, int64(inode>>16), int(inode&0xffff))
	kind := parseInodeHead(s)
	again := w.seen[inode]
	w.seen[inode] = true
	switch kind {
	case basicDir, extendedDir:
		if again { // no directory has two names
			return s.err
		}
		w.note(name, Dir, "")
		return w.list(parseDir(s, kind), name)
	case basicFile, extendedFile:
		w.note(name, Regular, "")
		if again {
			return s.err
		}
		f := parseFile(s, kind)
		if s.err != nil {
			return s.err
		}
		return w.add(s, f, name)
	case basicLink, extendedLink:
		w.note(name, Link, parseLink(s))
	default:
		w.note(name, Other, "")
	}
	return s.err
}

func (w *walk) note(name string, kind Kind, target string) {
	if name != "" {
		w.entries = append(w.entries, Entry{name, kind, target})
	}
}

// list visits what a directory holds.
func (w *walk) list(d directory, name string) error {
	s := w.tables.stream(w.super.directoryTable, int64(d.block), int(d.offset))
	for left := int64(d.size) - dotsSize; left > 0 && s.err == nil; {
		h := parseListHead(s)
		left -= listHeadSize
		for range h.count {
			e := parseListEntry(s)
			left -= int64(listEntrySize + len(e.name))
			switch w.left--; {
			case s.err != nil:
				return s.err
			case w.left < 0:
				return fmt.Errorf("more than %d names and blocks", maxItems)
			case !isName(e.name):
				return fmt.Errorf("directory /%s has a file called %q", name, e.name)
			}
			if err := w.visit(uint64(h.inodeBlock)<<16|uint64(e.inodeOffset), path.Join(name, e.name)); err != nil {
				return err
			}
		}
	}
	return s.err
}

// add adds a file; its block list follows in s.
func (w *walk) add(s *stream, f file, name string) error {
	blocks := f.size / uint64(w.super.blockSize)
	if f.fragment == noFragment && f.size%uint64(w.super.blockSize) > 0 {
		blocks++
	}
	if blocks > uint64(w.left) {
		return fmt.Errorf("more than %d names and blocks", maxItems)
	}
	w.left -= int(blocks)
	out := File{Path: name}
	at := int64(min(f.start, math.MaxInt64))
	for range blocks {
		size := int64(parseBlockSize(s))
		switch {
		case s.err != nil:
			return s.err
		case at > w.super.bytesUsed-size:
			return fmt.Errorf("/%s lies beyond the end", name)
		case size > 0:
			out.Blocks = append(out.Blocks, Extent{at, size})
			at += size
		}
	}
	if f.fragment != noFragment {
		e, err := w.tables.fragment(f.fragment)
		if err != nil {
			return err
		}
		out.Blocks, out.Fragment = append(out.Blocks, e), true
	}
	if len(out.Blocks) > 0 {
		w.files = append(w.files, out)
	}
	return nil
}
