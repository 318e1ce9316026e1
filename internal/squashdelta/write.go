package squashdelta

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"maps"
	"slices"

	"github.com/klauspost/compress/zstd"

	"viver.lan/internal/squashmap"
)

// Of the format: see package squashmap, which reads it.
const (
	superblockSize = 96
	metadataSize   = 8 << 10
	// plain marks a block of a table, and plainData one of content, that is not compressed.
	plain     = 1 << 15
	plainData = 1 << 24
	// hasOptions and isExportable are flags of the superblock: the compressor's options follow
	// it; there is a table for NFS.
	hasOptions   = 1 << 10
	isExportable = 1 << 7
	absent       = 1<<64 - 1 // the place of a table that there is not
	// extendedTypes is by how much the type of an inode is greater that has more to say.
	extendedTypes = 7
	// dotsSize is what a directory's size has for "." and "..", which are not there.
	dotsSize = 3
	// maxSharing is how many entries of a directory a head can count.
	maxSharing  = 256
	xattrIDSize = 16
)

// place is where the content of a file lies in what is written.
type place struct {
	start            uint64
	blocks           []uint32
	fragment, offset uint32
}

// writer writes from the beginning to the end; the head comes last.
type writer struct {
	plan *Plan
	out  io.WriterAt
	at   int64
	zstd *zstd.Encoder

	places    map[content]place
	fragments []squashmap.Block // as they are numbered now
	kept      map[uint32]uint32 // the number that a fragment of the old one has now
	// tail collects the ends of new files, which share a block: the fragment that will be
	// the next.
	tail   []byte
	tables int64
	// tablesSum is the sum of the tables, which begin at the place tables; nil before.
	tablesSum hash.Hash
}

func newWriter(p *Plan, out io.WriterAt) (*writer, error) {
	// A kernel takes no window larger than a block.
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(int(max(p.from.BlockSize, metadataSize))), zstd.WithEncoderCRC(false))
	if err != nil {
		return nil, err
	}
	w := &writer{plan: p, out: out, zstd: z, places: make(map[content]place), kept: map[uint32]uint32{squashmap.None: squashmap.None}}
	for _, i := range slices.Sorted(maps.Keys(p.oldFragments)) {
		w.kept[i] = uint32(len(w.fragments))
		w.fragments = append(w.fragments, p.oldFragments[i])
	}
	return w, nil
}

func (w *writer) close() { _ = w.zstd.Close() } // it wrote to nobody

func (w *writer) write(b []byte) error {
	if w.tablesSum != nil {
		w.tablesSum.Write(b)
	}
	_, err := w.out.WriteAt(b, w.at)
	w.at += int64(len(b))
	return err
}

// copyRange appends a part of an image.
func (w *writer) copyRange(ctx context.Context, from io.ReaderAt, at, n int64) error {
	buf := make([]byte, min(n, 1<<20))
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := buf[:min(n, int64(len(buf)))]
		if m, err := from.ReadAt(part, at); m < len(part) {
			return err
		}
		if err := w.write(part); err != nil {
			return err
		}
		at += int64(len(part))
		n -= int64(len(part))
	}
	return nil
}

// copyOld begins with the blocks of the old one, and its compressor's options, which lie
// before them.
func (w *writer) copyOld(ctx context.Context) error {
	return w.copyRange(ctx, w.plan.old, 0, w.plan.oldEnd)
}

// addNew appends what the old one has not, in the order of the fresh one.
func (w *writer) addNew(ctx context.Context) error {
	for _, in := range w.plan.from.Contents() {
		c := w.plan.sums[in]
		if _, done := w.places[c]; done {
			continue
		}
		if old := w.plan.kept[c]; old != nil {
			w.places[c] = place{old.Start, old.Blocks, w.kept[old.Fragment], old.FragmentOffset}
			continue
		}
		at := place{start: uint64(w.at), blocks: in.Blocks, fragment: squashmap.None}
		if err := w.copyRange(ctx, w.plan.fresh, int64(in.Start), in.Stored()); err != nil {
			return err
		}
		tail, err := w.plan.from.Tail(in)
		if err != nil {
			return err
		}
		if len(tail) > 0 {
			if len(w.tail)+len(tail) > int(w.plan.from.BlockSize) {
				if err := w.endFragment(); err != nil {
					return err
				}
			}
			at.fragment, at.offset = uint32(len(w.fragments)), uint32(len(w.tail))
			w.tail = append(w.tail, tail...)
		}
		w.places[c] = at
	}
	return w.endFragment()
}

// endFragment writes what was collected.
func (w *writer) endFragment() error {
	if len(w.tail) == 0 {
		return nil
	}
	b, size := w.zstd.EncodeAll(w.tail, nil), uint32(0)
	if len(b) >= len(w.tail) {
		b, size = w.tail, plainData
	}
	w.fragments = append(w.fragments, squashmap.Block{Offset: w.at, Size: size | uint32(len(b))})
	w.tail = w.tail[:0]
	return w.write(b)
}

// beginTables says that all content is written.
func (w *writer) beginTables() {
	w.tables, w.tablesSum = w.at, sha256.New()
}

// checkTables reads the tables again: a wrong byte may stand where neither a name nor a
// content tells.
func (w *writer) checkTables(written io.ReaderAt) error {
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(written, w.tables, w.at-w.tables)); err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), w.tablesSum.Sum(nil)) {
		return errors.New("other bytes in the tables")
	}
	return nil
}
