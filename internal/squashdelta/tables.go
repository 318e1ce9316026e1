package squashdelta

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/klauspost/compress/zstd"

	"viver.lan/internal/squashmap"
)

// le is how squashfs writes numbers.
type le []byte

func (b le) u16(n uint16) le { return binary.LittleEndian.AppendUint16(b, n) }
func (b le) u32(n uint32) le { return binary.LittleEndian.AppendUint32(b, n) }
func (b le) u64(n uint64) le { return binary.LittleEndian.AppendUint64(b, n) }

// table is made of blocks that are compressed one by one as they fill up.
type table struct {
	zstd   *zstd.Encoder
	stored []byte // the blocks that are full, as they are written
	starts []int  // of the blocks in stored
	block  []byte // the one that is not yet full
}

// spot is a place in a table: where its block begins, and where it is in that.
type spot struct {
	block  uint32
	offset uint16
}

// next is where what is added will be.
func (t *table) next() spot { return spot{uint32(len(t.stored)), uint16(len(t.block))} }

func (t *table) add(b []byte) {
	t.block = append(t.block, b...)
	for len(t.block) >= metadataSize {
		t.end(metadataSize)
	}
}

// end ends a block with n bytes.
func (t *table) end(n int) {
	b, head := t.zstd.EncodeAll(t.block[:n], nil), uint16(0)
	if len(b) >= n {
		b, head = t.block[:n], plain
	}
	t.starts = append(t.starts, len(t.stored))
	t.stored = append(le(t.stored).u16(head|uint16(len(b))), b...)
	t.block = t.block[n:]
}

func (t *table) finish() []byte {
	if len(t.block) > 0 {
		t.end(len(t.block))
	}
	return t.stored
}

// addTable appends a table, and returns where it begins.
func (w *writer) addTable(t *table) (at int64, err error) {
	at = w.at
	return at, w.write(t.finish())
}

// addIndexed appends a table and the list of where its blocks begin, with head before
// that, and returns where this is.
func (w *writer) addIndexed(data, head []byte) (at int64, err error) {
	t := table{zstd: w.zstd}
	t.add(data)
	begin, err := w.addTable(&t)
	if err != nil {
		return 0, err
	}
	at = w.at
	list := le(head)
	for _, start := range t.starts {
		list = list.u64(uint64(begin) + uint64(start))
	}
	return at, w.write(list)
}

// addTables appends all tables and writes the head. A kernel wants them in this order, and
// nothing between them.
func (w *writer) addTables() error {
	w.beginTables()
	t := trees{writer: w, inodes: table{zstd: w.zstd}, lists: table{zstd: w.zstd}, spots: make(map[*squashmap.Inode]spot)}
	if err := t.addDir(w.plan.from.Root); err != nil {
		return err
	}
	if _, err := w.addTable(&t.inodes); err != nil {
		return err
	}
	lists, err := w.addTable(&t.lists)
	if err != nil {
		return err
	}
	var list le
	for _, f := range w.fragments {
		list = list.u64(uint64(f.Offset)).u32(f.Size).u32(0)
	}
	fragments, err := w.addIndexed(list, nil)
	if err != nil {
		return err
	}
	ids, err := w.addIDs()
	if err != nil {
		return err
	}
	xattrs, err := w.addAttributes()
	if err != nil {
		return err
	}
	root := t.spots[w.plan.from.Root]
	return w.writeHead(head{
		fragments: uint32(len(w.fragments)), root: uint64(root.block)<<16 | uint64(root.offset), used: uint64(w.at),
		ids: uint64(ids), xattrs: xattrs, inodes: uint64(w.tables), lists: uint64(lists), fragmentList: uint64(fragments),
	})
}

func (w *writer) addIDs() (at int64, err error) {
	ids, err := w.plan.from.IDs()
	if err != nil {
		return 0, err
	}
	var list le
	for _, id := range ids {
		list = list.u32(id)
	}
	return w.addIndexed(list, nil)
}

func (w *writer) addAttributes() (at uint64, err error) {
	x, err := w.plan.from.XattrTable()
	if err != nil || x == nil {
		return absent, err
	}
	pairs := w.at
	if err := w.write(x.Pairs); err != nil {
		return 0, err
	}
	place, err := w.addIndexed(x.IDs, le(nil).u64(uint64(pairs)).u32(uint32(len(x.IDs)/xattrIDSize)).u32(0))
	return uint64(place), err
}

// head is what the superblock says of the places of tables.
type head struct {
	fragments                                            uint32
	root, used, ids, xattrs, inodes, lists, fragmentList uint64
}

// writeHead writes the superblock: the fresh one's but for places, with the old one's flag
// for the options that follow it.
func (w *writer) writeHead(h head) error {
	var old, b [superblockSize]byte
	if _, err := w.plan.old.ReadAt(old[:], 0); err != nil {
		return err
	}
	if _, err := w.plan.fresh.ReadAt(b[:], 0); err != nil {
		return err
	}
	flags := binary.LittleEndian.Uint16(b[24:])&^(hasOptions|isExportable) | binary.LittleEndian.Uint16(old[24:])&hasOptions
	le(b[:16]).u32(h.fragments)
	le(b[:24]).u16(flags)
	le(b[:32]).u64(h.root).u64(h.used).u64(h.ids).u64(h.xattrs).u64(h.inodes).u64(h.lists).u64(h.fragmentList).u64(absent)
	_, err := w.out.WriteAt(b[:], 0)
	return err
}

// trees writes inodes and the lists of directories, each behind what it names.
type trees struct {
	*writer
	inodes, lists table
	spots         map[*squashmap.Inode]spot
}

func (t *trees) addDir(dir *squashmap.Inode) error {
	for _, e := range dir.Entries {
		if _, done := t.spots[e.Inode]; done { // another name of a file
			continue
		}
		var err error
		if e.Type == squashmap.TypeDir {
			err = t.addDir(e.Inode)
		} else {
			err = t.addInode(e.Inode)
		}
		if err != nil {
			return err
		}
	}
	at := t.lists.next()
	size, index := t.addList(dir)
	t.spots[dir] = t.inodes.next()
	size += dotsSize
	if size > math.MaxUint32 || len(index) > math.MaxUint16 {
		return errTooLarge
	}
	if size <= math.MaxUint16 && len(index) == 0 && dir.Xattr == squashmap.None {
		t.inodes.add(start(dir, false).u32(at.block).u32(dir.Links).u16(uint16(size)).u16(at.offset).u32(dir.Parent))
		return nil
	}
	b := start(dir, true).u32(dir.Links).u32(uint32(size)).u32(at.block).u32(dir.Parent).u16(uint16(len(index))).u16(at.offset).u32(dir.Xattr)
	for _, i := range index {
		b = append(b.u32(uint32(i.at)).u32(i.block).u32(uint32(len(i.name)-1)), i.name...)
	}
	t.inodes.add(b)
	return nil
}

// start begins an inode.
func start(in *squashmap.Inode, extended bool) le {
	kind := uint16(in.Type)
	if extended {
		kind += extendedTypes
	}
	return le(nil).u16(kind).u16(in.Mode).u16(in.Owner).u16(in.Group).u32(in.Time).u32(in.Number)
}

// indexEntry lets a kernel find a name in a long list: from where on names are not
// less than this one.
type indexEntry struct {
	at    int    // in the list
	block uint32 // of the table
	name  string
}

// addList writes what is in a directory. Files whose inodes are in one block share a head.
func (t *trees) addList(dir *squashmap.Inode) (size int, index []indexEntry) {
	var indexed int
	for i := 0; i < len(dir.Entries); {
		n := t.sharing(dir.Entries[i:])
		if size-indexed >= metadataSize {
			indexed = size
			index = append(index, indexEntry{size, t.lists.next().block, dir.Entries[i].Name})
		}
		first := dir.Entries[i]
		b := le(nil).u32(uint32(n - 1)).u32(t.spots[first.Inode].block).u32(first.Number)
		for _, e := range dir.Entries[i : i+n] {
			b = append(b.u16(t.spots[e.Inode].offset).u16(uint16(e.Number-first.Number)).u16(uint16(e.Type)).u16(uint16(len(e.Name)-1)), e.Name...)
		}
		t.lists.add(b)
		size += len(b)
		i += n
	}
	return size, index
}

// sharing is how many entries share a head.
func (t *trees) sharing(entries []squashmap.Child) int {
	first := entries[0]
	for i, e := range entries {
		apart := int64(e.Number) - int64(first.Number)
		if i == maxSharing || t.spots[e.Inode].block != t.spots[first.Inode].block || apart > math.MaxInt16 || apart < math.MinInt16 {
			return i
		}
	}
	return len(entries)
}

// addInode writes what is no directory.
func (t *trees) addInode(in *squashmap.Inode) error {
	t.spots[in] = t.inodes.next()
	if in.Type == squashmap.TypeFile {
		return t.addFile(in)
	}
	more := in.Xattr != squashmap.None
	b := start(in, more).u32(in.Links)
	switch in.Type {
	case squashmap.TypeLink:
		b = append(b.u32(uint32(len(in.Target))), in.Target...)
	case squashmap.TypeBlock, squashmap.TypeChar:
		b = b.u32(in.Device)
	}
	if more {
		b = b.u32(in.Xattr)
	}
	t.inodes.add(b)
	return nil
}

func (t *trees) addFile(in *squashmap.Inode) error {
	at := place{fragment: squashmap.None}
	if in.Size > 0 {
		at = t.places[t.plan.sums[in]]
	}
	var b le
	if at.start > math.MaxUint32 || in.Size > math.MaxUint32 || in.Holes > 0 || in.Links > 1 || in.Xattr != squashmap.None {
		b = start(in, true).u64(at.start).u64(in.Size).u64(in.Holes).u32(in.Links).u32(at.fragment).u32(at.offset).u32(in.Xattr)
	} else {
		b = start(in, false).u32(uint32(at.start)).u32(at.fragment).u32(at.offset).u32(uint32(in.Size))
	}
	for _, size := range at.blocks {
		b = b.u32(size)
	}
	t.inodes.add(b)
	if len(t.inodes.stored) > math.MaxUint32 || len(t.lists.stored) > math.MaxUint32 {
		return fmt.Errorf("%w: it has more than 4 GiB of tables", errTooLarge)
	}
	return nil
}
