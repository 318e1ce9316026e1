package squashmap

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Sum tells the contents of files apart, in whatever blocks they lie.
type Sum [sha256.Size]byte

// Contents lists the files that are not empty, each once, in the order in which their
// contents end on the disk: those of one fragment follow each other.
func (fs *FS) Contents() []*Inode {
	var list []*Inode
	seen := make(map[*Inode]bool)
	for _, in := range fs.All() {
		if in.Type == TypeFile && in.Size > 0 && !seen[in] {
			seen[in] = true
			list = append(list, in)
		}
	}
	// A fragment lies behind the blocks of the files that end in it.
	end := func(in *Inode) int64 {
		if in.Fragment != None {
			return fs.Fragment(in).Offset
		}
		return int64(in.Start)
	}
	slices.SortStableFunc(list, func(a, b *Inode) int {
		return cmp.Or(cmp.Compare(end(a), end(b)), cmp.Compare(a.FragmentOffset, b.FragmentOffset))
	})
	return list
}

// Sum reads the content of a file and returns its sum. Whoever asks for many asks in the
// order of Contents, since the fragment that was read last is kept.
func (fs *FS) Sum(in *Inode) (sum Sum, err error) {
	h := sha256.New()
	left := in.Size
	at := int64(in.Start)
	buf := make([]byte, 0, fs.BlockSize)
	for _, size := range in.Blocks {
		n := min(left, uint64(fs.BlockSize))
		left -= n
		block := Block{at, size}
		at += block.Extent().Length
		var data []byte
		if size != 0 {
			if data, err = fs.read(block, buf); err != nil {
				return sum, err
			}
			if uint64(len(data)) != n {
				return sum, fmt.Errorf("a block has %d bytes, want %d", len(data), n)
			}
		}
		addBlock(h, data, n)
	}
	if left > 0 {
		tail, err := fs.Tail(in)
		if err != nil {
			return sum, err
		}
		addBlock(h, tail, left)
	}
	h.Sum(sum[:0])
	return sum, nil
}

// addBlock adds a block to a sum. One of zeros is the same as a hole, which costs
// nothing.
func addBlock(h io.Writer, data []byte, n uint64) {
	hole := byte(1)
	for _, b := range data {
		if b != 0 {
			hole = 0
			break
		}
	}
	// The length keeps a hole apart from content of one byte. A hash takes any bytes.
	_, _ = h.Write([]byte{hole, byte(n), byte(n >> 8), byte(n >> 16)})
	if hole == 0 {
		_, _ = h.Write(data)
	}
}

// Tail returns the end of a file that is in a fragment; nil if it is in none. It is valid
// until the next call.
func (fs *FS) Tail(in *Inode) ([]byte, error) {
	if in.Fragment == None {
		return nil, nil
	}
	f := fs.fragments[in.Fragment]
	if fs.last.Block != f || fs.last.data == nil {
		data, err := fs.read(f, fs.last.data[:0])
		if err != nil {
			fs.last.data = nil
			return nil, err
		}
		fs.last.Block, fs.last.data = f, data
	}
	begin, size := uint64(in.FragmentOffset), in.Size%uint64(fs.BlockSize)
	if size == 0 || begin+size > uint64(len(fs.last.data)) {
		return nil, errors.New("a file lies beyond the end of its fragment")
	}
	return fs.last.data[begin : begin+size], nil
}

// Fragment returns where the fragment of a file lies, whose number is not None.
func (fs *FS) Fragment(in *Inode) Block { return fs.fragments[in.Fragment] }

// read returns the content of a block, in buf if that is large enough.
func (fs *FS) read(b Block, buf []byte) ([]byte, error) {
	size := b.Extent().Length
	if size > int64(fs.BlockSize) {
		return nil, fmt.Errorf("a block takes %d bytes for at most %d", size, fs.BlockSize)
	}
	data, err := fs.tables.readAt(b.Offset, int(size))
	if err != nil || b.Size&stored != 0 {
		return data, err
	}
	if uint32(cap(buf)) < fs.BlockSize {
		buf = make([]byte, 0, fs.BlockSize)
	}
	if data, err = fs.tables.zstd.DecodeAll(data, buf[:0]); err != nil {
		return nil, fmt.Errorf("a block: %w", err)
	}
	return data, nil
}
