// Package squashdelta makes a squashfs from two: one that machines have already, and a
// fresh one of the files that there shall be. The result is the fresh one, file by file, but it
// begins with the blocks of the old one, at their places. So whoever has the old one
// lacks only what is new:
//
//	| head | blocks of the old one | blocks of new content | tables |
//	  new    as they are             not in the old one      new
//
// Content that both have is stored once, whatever its name, and by whatever
// compressor each was made. What the old one has and the fresh one does not stays between
// the blocks, and no file leads to it: it is dead. Whoever calls decides how much of
// that is too much.
//
// mksquashfs appends to a squashfs too, but not what comes from an archive, and it keeps the
// old files. The invariant: what Write has written was read again, and has the
// names, attributes and contents of the fresh one; and both give the same bytes every time.
package squashdelta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"viver.lan/internal/squashmap"
)

// Image is a squashfs of Size bytes.
type Image struct {
	io.ReaderAt
	Size int64
}

// Plan says where the content of each file comes from.
type Plan struct {
	// Dead is how many bytes of the old blocks no file leads to any more, of Old.
	Dead, Old int64

	old, fresh Image
	from       *squashmap.FS // the fresh one
	sums       map[*squashmap.Inode]content
	kept       map[content]*squashmap.Inode // in the old one
	// oldFragments are the fragments of the files in kept.
	oldFragments map[uint32]squashmap.Block
	oldEnd       int64
	progress     func(done, total int64)
	done, total  int64
}

// content names what is in a file.
type content struct {
	sum  squashmap.Sum
	size uint64
}

// Compare finds what the fresh squashfs has in common with the old one. It tells
// progress how many bytes it and Write have read, of how many. The caller closes the plan.
func Compare(ctx context.Context, old, fresh Image, progress func(done, total int64)) (*Plan, error) {
	have, err := squashmap.Open(old, old.Size)
	if err != nil {
		return nil, fmt.Errorf("the old one: %w", err)
	}
	defer have.Close()
	from, err := squashmap.Open(fresh, fresh.Size)
	if err != nil {
		return nil, err
	}
	// Both are read to compare them, and what was written once more.
	p := &Plan{old: old, fresh: fresh, from: from, oldEnd: have.DataEnd, progress: progress, total: have.DataEnd + 2*from.DataEnd}
	if err := p.compare(ctx, have); err != nil {
		p.Close()
		return nil, err
	}
	return p, nil
}

// Close releases what reading needs.
func (p *Plan) Close() { p.from.Close() }

func (p *Plan) compare(ctx context.Context, have *squashmap.FS) error {
	if have.BlockSize != p.from.BlockSize {
		return fmt.Errorf("the old one has blocks of %d bytes, and new ones have %d", have.BlockSize, p.from.BlockSize)
	}
	sums, err := p.read(ctx, have, have.DataEnd)
	if err != nil {
		return fmt.Errorf("the old one: %w", err)
	}
	if p.sums, err = p.read(ctx, p.from, p.from.DataEnd); err != nil {
		return err
	}
	wanted := make(map[content]bool, len(p.sums))
	for _, c := range p.sums {
		wanted[c] = true
	}
	p.kept = make(map[content]*squashmap.Inode)
	p.oldFragments = make(map[uint32]squashmap.Block)
	var live []squashmap.Extent
	for _, in := range have.Contents() {
		c := sums[in]
		if !wanted[c] || p.kept[c] != nil {
			continue
		}
		p.kept[c] = in
		live = append(live, squashmap.Extent{Offset: int64(in.Start), Length: in.Stored()})
		if in.Fragment != squashmap.None {
			p.oldFragments[in.Fragment] = have.Fragment(in)
			live = append(live, have.Fragment(in).Extent())
		}
	}
	p.Old = have.DataEnd - superblockSize
	p.Dead = p.Old - union(live)
	return nil
}

// read sums up all contents. That is a part of the total progress.
func (p *Plan) read(ctx context.Context, fs *squashmap.FS, part int64) (map[*squashmap.Inode]content, error) {
	list := fs.Contents()
	sums := make(map[*squashmap.Inode]content, len(list))
	var size, done float64
	for _, in := range list {
		size += float64(in.Size - in.Holes)
	}
	for _, in := range list {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		sum, err := fs.Sum(in)
		if err != nil {
			return nil, err
		}
		sums[in] = content{sum, in.Size}
		done += float64(in.Size - in.Holes)
		p.progress(p.done+int64(float64(part)*done/max(size, 1)), p.total)
	}
	p.done += part
	return sums, nil
}

// union is how many bytes there are in at least one of the extents.
func union(list []squashmap.Extent) (n int64) {
	slices.SortFunc(list, func(a, b squashmap.Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	var end int64
	for _, e := range list {
		n += max(0, e.Offset+e.Length-max(end, e.Offset))
		end = max(end, e.Offset+e.Length)
	}
	return n
}

// File is what Write writes to and reads again.
type File interface {
	io.WriterAt
	io.ReaderAt
}

// Write writes the squashfs and returns its size.
func (p *Plan) Write(ctx context.Context, out File) (size int64, err error) {
	w, err := newWriter(p, out)
	if err != nil {
		return 0, err
	}
	defer w.close()
	if err := w.copyOld(ctx); err != nil {
		return 0, err
	}
	if err := w.addNew(ctx); err != nil {
		return 0, err
	}
	if err := w.addTables(); err != nil {
		return 0, err
	}
	err = w.checkTables(out)
	if err == nil {
		err = p.check(ctx, Image{out, w.at})
	}
	if err != nil {
		return 0, fmt.Errorf("what was written is not what was to be written: %w", err)
	}
	return w.at, nil
}

// check compares what was written with the fresh one.
func (p *Plan) check(ctx context.Context, written Image) error {
	got, err := squashmap.Open(written, written.Size)
	if err != nil {
		return err
	}
	defer got.Close()
	sums, err := p.read(ctx, got, p.from.DataEnd)
	if err != nil {
		return err
	}
	return p.same("", got.Root, p.from.Root, sums)
}

// same compares two files and what is below them.
func (p *Plan) same(name string, got, want *squashmap.Inode, sums map[*squashmap.Inode]content) error {
	if describe(got) != describe(want) || len(got.Entries) != len(want.Entries) || sums[got] != p.sums[want] {
		return fmt.Errorf("/%s differs", name)
	}
	for i, e := range got.Entries {
		if e.Name != want.Entries[i].Name {
			return fmt.Errorf("/%s has %q, want %q", name, e.Name, want.Entries[i].Name)
		}
		if err := p.same(name+"/"+e.Name, e.Inode, want.Entries[i].Inode, sums); err != nil {
			return err
		}
	}
	return nil
}

// description is what an inode says but for places.
type description struct {
	kind                        squashmap.Type
	mode, owner, group          uint16
	time, number, parent, links uint32
	device, xattr               uint32
	target                      string
	size, holes                 uint64
}

func describe(in *squashmap.Inode) description {
	return description{in.Type, in.Mode, in.Owner, in.Group, in.Time, in.Number, in.Parent, in.Links, in.Device, in.Xattr, in.Target, in.Size, in.Holes}
}

var errTooLarge = errors.New("a squashfs cannot be so large")
