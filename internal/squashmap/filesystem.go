package squashmap

import (
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"path"
)

// FS is a file system whose tables were read. It is for one goroutine.
type FS struct {
	// Root is its top directory.
	Root *Inode
	// BlockSize is how much content a block holds, in bytes.
	BlockSize uint32
	// DataEnd is where the blocks end and the tables begin.
	DataEnd int64
	// Used is the size of the file system; the file may go on.
	Used int64

	tables    *tables
	fragments map[uint32]Block // those that files have
	last      struct {         // the fragment that was read last
		Block
		data []byte
	}
}

// Inode is a file of whatever type. A file with several names is one Inode.
type Inode struct {
	Type Type
	// Mode are the permissions.
	Mode uint16
	// Owner and Group are places in the table of IDs.
	Owner, Group uint16
	// Time of the last change, in seconds since 1970.
	Time uint32
	// Number of the inode, and of a directory that of the one above.
	Number, Parent uint32
	Links          uint32
	// Device is the number of a device.
	Device uint32
	// Xattr is a place in the table of extended attributes, or None.
	Xattr uint32
	// Target is where a symbolic link leads; any bytes but 0.
	Target string

	// Size of a file's content in bytes, and what of it are holes.
	Size, Holes uint64
	// Start is where its blocks lie, one behind the other. Each has a size as the file
	// system says it: 0 is a hole.
	Start  uint64
	Blocks []uint32
	// Fragment has the end of the content, at FragmentOffset; or it is None.
	Fragment, FragmentOffset uint32

	// Entries of a directory, in its order.
	Entries []Child
}

// Child is a file in a directory.
type Child struct {
	Name string
	*Inode
}

// Block is where some content lies.
type Block struct {
	Offset int64
	// Size as the file system says it, with a bit for what is not compressed.
	Size uint32
}

// Extent is the part of the file system's bytes that a block takes.
func (b Block) Extent() Extent { return Extent{b.Offset, int64(storedSize(b.Size))} }

// extents are the blocks of a file, without its fragment.
func (in *Inode) extents() (list []Extent) {
	at := int64(in.Start)
	for _, size := range in.Blocks {
		if size != 0 {
			list = append(list, Block{at, size}.Extent())
			at += int64(storedSize(size))
		}
	}
	return list
}

// Stored is how many bytes the blocks of a file take, without its fragment.
func (in *Inode) Stored() (n int64) {
	for _, size := range in.Blocks {
		n += int64(storedSize(size))
	}
	return n
}

// Open reads the tables of a squashfs of size bytes. The caller closes what it returns.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	w, err := newWalk(r, size)
	if err != nil {
		return nil, fmt.Errorf("read squashfs: %w", err)
	}
	if w.fs.Root, err = w.visit(w.super.rootInode, ""); err == nil && w.fs.Root.Type != TypeDir {
		err = errors.New("its root is no directory")
	}
	if err != nil {
		w.fs.Close()
		return nil, fmt.Errorf("read squashfs: %w", err)
	}
	return w.fs, nil
}

// Close releases what reading needs. The caller keeps the bytes.
func (fs *FS) Close() { fs.tables.close() }

// All goes through all names but the root's, each directory before what it holds; paths
// are as that of a File.
func (fs *FS) All() iter.Seq2[string, *Inode] {
	return func(yield func(string, *Inode) bool) { fs.Root.all("", yield) }
}

func (in *Inode) all(name string, yield func(string, *Inode) bool) bool {
	for _, e := range in.Entries {
		below := path.Join(name, e.Name)
		if !yield(below, e.Inode) || !e.all(below, yield) {
			return false
		}
	}
	return true
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
	fs := &FS{BlockSize: super.blockSize, DataEnd: super.inodeTable, Used: super.bytesUsed, tables: tables, fragments: make(map[uint32]Block)}
	return &walk{fs: fs, tables: tables, super: super, seen: make(map[uint64]*Inode), left: maxItems}, nil
}

// walk goes through directories.
type walk struct {
	fs     *FS
	tables *tables
	super  superblock
	seen   map[uint64]*Inode // by their place in the table
	left   int               // items that may still be read
}

// visit reads an inode and what is below it.
func (w *walk) visit(place uint64, name string) (*Inode, error) {
	if len(name) > maxPath {
		return nil, errors.New("directories are nested too deep")
	}
	if in := w.seen[place]; in != nil {
		if in.Type == TypeDir {
			return nil, fmt.Errorf("directory /%s has two names", name)
		}
		return in, nil
	}
	s := w.tables.stream(w.super.inodeTable, int64(place>>16), int(place&0xffff))
	in, d := parseInode(s)
	if s.err != nil {
		return nil, s.err
	}
	w.seen[place] = in
	switch in.Type {
	case TypeDir:
		return in, w.list(in, d, name)
	case TypeFile:
		return in, w.content(s, in, name)
	}
	return in, nil
}

// list visits what a directory holds.
func (w *walk) list(in *Inode, d directory, name string) error {
	if d.size <= dotsSize {
		return nil // where an empty one has its list means nothing
	}
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
			below, err := w.visit(uint64(h.inodeBlock)<<16|uint64(e.inodeOffset), path.Join(name, e.name))
			if err != nil {
				return err
			}
			in.Entries = append(in.Entries, Child{e.name, below})
		}
	}
	return s.err
}

// content reads where a file's content is; the sizes of its blocks follow in s.
func (w *walk) content(s *stream, in *Inode, name string) error {
	blocks := in.Size / uint64(w.super.blockSize)
	if in.Fragment == None && in.Size%uint64(w.super.blockSize) > 0 {
		blocks++
	}
	if blocks > uint64(w.left) {
		return fmt.Errorf("more than %d names and blocks", maxItems)
	}
	w.left -= int(blocks)
	at := int64(min(in.Start, math.MaxInt64))
	for range blocks {
		size := s.u32()
		switch {
		case s.err != nil:
			return s.err
		case at > w.super.bytesUsed-int64(storedSize(size)):
			return fmt.Errorf("/%s lies beyond the end", name)
		}
		at += int64(storedSize(size))
		in.Blocks = append(in.Blocks, size)
	}
	if in.Fragment == None {
		return nil
	}
	f, err := w.tables.fragment(in.Fragment)
	w.fs.fragments[in.Fragment] = f
	return err
}
