package squashmap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// The structures of squashfs 4.0; all numbers are little-endian.

// Sizes in bytes.
const (
	superblockSize = 96
	listHeadSize   = 12
	listEntrySize  = 8 // without its name
	// dotsSize is what a directory's size has for "." and "..", which are not there.
	dotsSize = 3
	// metadataSize is the most that a block of a table holds.
	metadataSize = 8 << 10
	// fragmentSize is an entry of the fragment table.
	fragmentSize = 16
)

// Type is what an inode is of, as a directory's list and a basic inode say it.
type Type uint16

// The types. An inode's own number is greater by extended if it has more to say.
const (
	TypeDir Type = 1 + iota
	TypeFile
	TypeLink
	TypeBlock
	TypeChar
	TypePipe
	TypeSocket
	extended = 7
)

// None is the number of a fragment, or of attributes, that an inode does not have.
const None = 1<<32 - 1

// stored is the bit of a size that says that a block is not compressed.
const stored = 1 << 24

// Methods of compression.
const zstdCompression = 6

type superblock struct {
	blockSize      uint32
	fragments      uint32
	ids            uint16
	rootInode      uint64 // as all inodes: block of the table << 16 | offset in it
	bytesUsed      int64
	idTable        int64
	xattrTable     int64 // negative if there is none
	inodeTable     int64
	directoryTable int64
	fragmentTable  int64
}

// parseSuperblock reads the head of a file system.
func parseSuperblock(b []byte) (superblock, error) {
	if len(b) < superblockSize || string(b[:4]) != "hsqs" {
		return superblock{}, errors.New("it is none")
	}
	u16, u32 := binary.LittleEndian.Uint16, binary.LittleEndian.Uint32
	place := func(at int) int64 { return int64(binary.LittleEndian.Uint64(b[at:])) }
	s := superblock{
		blockSize: u32(b[12:]), fragments: u32(b[16:]), ids: u16(b[26:]), rootInode: uint64(place(32)), bytesUsed: place(40),
		idTable: place(48), xattrTable: place(56),
		inodeTable: place(64), directoryTable: place(72), fragmentTable: place(80),
	}
	switch {
	case u16(b[28:]) != 4 || u16(b[30:]) != 0:
		return superblock{}, fmt.Errorf("version %d.%d, want 4.0", u16(b[28:]), u16(b[30:]))
	case u16(b[20:]) != zstdCompression:
		return superblock{}, fmt.Errorf("it is compressed by method %d, want zstd", u16(b[20:]))
	case s.blockSize < 4<<10 || s.blockSize > 1<<20 || s.blockSize&(s.blockSize-1) != 0:
		return superblock{}, fmt.Errorf("blocks of %d bytes", s.blockSize)
	case s.bytesUsed < superblockSize, s.inodeTable < 0, s.directoryTable < 0, s.fragments > 0 && s.fragmentTable < 0:
		return superblock{}, errors.New("a place is negative")
	}
	return s, nil
}

// parseInode reads an inode but for the sizes of a file's blocks, which follow it. Of a
// directory it returns where its list is.
func parseInode(s *stream) (*Inode, directory) {
	kind := s.u16()
	in := &Inode{
		Mode: s.u16(), Owner: s.u16(), Group: s.u16(), Time: s.u32(), Number: s.u32(),
		Links: 1, Xattr: None, Fragment: None,
	}
	more := kind > extended
	if more {
		kind -= extended
	}
	in.Type = Type(kind)
	var d directory
	switch in.Type {
	case TypeDir:
		d = parseDir(s, in, more)
		return in, d
	case TypeFile:
		parseFile(s, in, more)
		return in, d
	case TypeLink:
		in.Links, in.Target = s.u32(), parseTarget(s)
	case TypeBlock, TypeChar:
		in.Links, in.Device = s.u32(), s.u32()
	case TypePipe, TypeSocket:
		in.Links = s.u32()
	default:
		s.fail(fmt.Errorf("an inode has the type %d", kind))
	}
	if more {
		in.Xattr = s.u32()
	}
	return in, d
}

// directory is where a directory's list is.
type directory struct {
	block  uint32
	offset uint16
	size   uint32
}

func parseDir(s *stream, in *Inode, more bool) (d directory) {
	if !more {
		d.block, in.Links = s.u32(), s.u32()
		d.size, d.offset, in.Parent = uint32(s.u16()), s.u16(), s.u32()
		return d
	}
	in.Links, d.size, d.block, in.Parent = s.u32(), s.u32(), s.u32(), s.u32()
	s.skip(2) // number of indexes
	d.offset, in.Xattr = s.u16(), s.u32()
	return d
}

func parseFile(s *stream, in *Inode, more bool) {
	if !more {
		in.Start, in.Fragment, in.FragmentOffset, in.Size = uint64(s.u32()), s.u32(), s.u32(), uint64(s.u32())
		return
	}
	in.Start, in.Size, in.Holes, in.Links = s.u64(), s.u64(), s.u64(), s.u32()
	in.Fragment, in.FragmentOffset, in.Xattr = s.u32(), s.u32(), s.u32()
}

// parseTarget reads where a symbolic link leads.
func parseTarget(s *stream) string {
	size := s.u32()
	if size == 0 || size > maxPath {
		s.fail(fmt.Errorf("a symbolic link has %d bytes", size))
		return ""
	}
	return string(s.next(int(size)))
}

// storedSize takes off the bit that says that a block is not compressed.
func storedSize(n uint32) uint32 { return n &^ stored }

// listHead begins a part of a directory's list: files whose inodes are in one block.
type listHead struct {
	count      int
	inodeBlock uint32
}

func parseListHead(s *stream) listHead {
	h := listHead{count: int(s.u32()) + 1, inodeBlock: s.u32()}
	s.skip(4) // number of an inode
	if h.count > 256 {
		s.fail(fmt.Errorf("a directory lists %d files at once", h.count))
		return listHead{}
	}
	return h
}

type listEntry struct {
	inodeOffset uint16
	name        string
}

func parseListEntry(s *stream) (e listEntry) {
	e.inodeOffset = s.u16()
	s.skip(4) // number of the inode, type
	e.name = string(s.next(int(s.u16()) + 1))
	return e
}

// isName reports whether a name can be that of a file in a directory.
func isName(name string) bool {
	return name != "" && len(name) <= 256 && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}
