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

// Types of inodes that lead somewhere.
const (
	basicDir     = 1
	basicFile    = 2
	basicLink    = 3
	extendedDir  = 8
	extendedFile = 9
	extendedLink = 10
)

// noFragment is the number of a fragment that is none.
const noFragment = 1<<32 - 1

// Methods of compression.
const zstdCompression = 6

type superblock struct {
	blockSize      uint32
	fragments      uint32
	rootInode      uint64 // as all inodes: block of the table << 16 | offset in it
	bytesUsed      int64
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
		blockSize: u32(b[12:]), fragments: u32(b[16:]), rootInode: uint64(place(32)), bytesUsed: place(40),
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

// parseInodeHead reads what all inodes begin with, and returns the type.
func parseInodeHead(s *stream) uint16 {
	kind := s.u16()
	s.skip(14) // mode, owner, group, time, number
	return kind
}

// directory is where a directory's list is.
type directory struct {
	block  uint32
	offset uint16
	size   uint32
}

func parseDir(s *stream, kind uint16) (d directory) {
	if kind == basicDir {
		d.block = s.u32()
		s.skip(4) // links
		d.size, d.offset = uint32(s.u16()), s.u16()
		return d
	}
	s.skip(4) // links
	d.size, d.block = s.u32(), s.u32()
	s.skip(6) // parent, number of indexes
	d.offset = s.u16()
	return d
}

// file is where a file's content is; the sizes of its blocks follow.
type file struct {
	start    uint64
	size     uint64
	fragment uint32
}

func parseFile(s *stream, kind uint16) (f file) {
	if kind == basicFile {
		f.start, f.fragment = uint64(s.u32()), s.u32()
		s.skip(4) // place in the fragment
		f.size = uint64(s.u32())
		return f
	}
	f.start, f.size = s.u64(), s.u64()
	s.skip(12) // bytes of holes, links
	f.fragment = s.u32()
	s.skip(8) // place in the fragment, attributes
	return f
}

// parseLink reads where a symbolic link leads.
func parseLink(s *stream) string {
	s.skip(4) // links
	size := s.u32()
	if size == 0 || size > maxPath {
		s.fail(fmt.Errorf("a symbolic link has %d bytes", size))
		return ""
	}
	return string(s.next(int(size)))
}

// parseBlockSize reads how many bytes a data block takes; none for a hole.
func parseBlockSize(s *stream) uint32 { return storedSize(s.u32()) }

// storedSize takes off the bit that says that a block is not compressed.
func storedSize(n uint32) uint32 { return n &^ (1 << 24) }

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
