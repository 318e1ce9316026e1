package vfield

import (
	"context"
	"fmt"
	"slices"

	"viver.lan/internal/exchange"
)

// ReadAt fills p with the payload's bytes from off on. What is not here is
// fetched; while nobody can send it, ReadAt waits, and says so. It returns an
// error only for a range outside the payload or when ctx ends.
func (v *Volume) ReadAt(ctx context.Context, p []byte, off int64) error {
	return v.eachPiece(p, off, func(i int, p []byte, off int) error { return v.readPiece(ctx, i, p, off) })
}

// ReadHere is ReadAt for what this node's store holds: what is not in it, and nothing
// else, is an error. It waits for nothing but the store's disk, if that is on one.
func (v *Volume) ReadHere(p []byte, off int64) error {
	return v.eachPiece(p, off, func(i int, p []byte, off int) error {
		v.setPlayhead(i)
		return v.store.Read(context.Background(), i, p, off)
	})
}

// eachPiece calls read for each piece in a range of the payload, with the part of p for
// it and where in the piece that begins.
func (v *Volume) eachPiece(p []byte, off int64, read func(i int, p []byte, off int) error) error {
	if off < 0 || off > v.info.Size-int64(len(p)) {
		return fmt.Errorf("read %d bytes at %d: the volume has %d", len(p), off, v.info.Size)
	}
	for len(p) > 0 {
		i := int(off / v.info.PieceLength)
		from := int(off - v.info.PieceOffset(i))
		n := min(len(p), int(v.info.PieceSize(i))-from)
		if err := read(i, p[:n], from); err != nil {
			return fmt.Errorf("read piece %d: %w", i, err)
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

// readPiece asks the sources in turn, and all of them again when the piece has just
// come.
func (v *Volume) readPiece(ctx context.Context, i int, dst []byte, off int) error {
	v.setPlayhead(i)
	for {
		for _, s := range v.sources {
			if err := s.Read(ctx, i, dst, off); err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
	}
}

// setPlayhead notes where this node reads, so that what follows comes first. The read
// does not wait until the swarm knows; and where all is here, as most of what a boot reads,
// there is nothing that the swarm could do about it.
func (v *Volume) setPlayhead(i int) {
	was := int(v.ahead.playhead.Swap(int64(i)))
	if was == i {
		return
	}
	var changed []span
	if v.medium == nil && (!v.store.fitsAll() || v.demandOnly.Load()) {
		cache := int(v.store.Budget()/v.info.PieceLength) - v.replicas.pinned()
		changed = v.ahead.advance(was, i, cache)
	}
	changed = slices.DeleteFunc(changed, func(s span) bool { return s.lo >= s.hi })
	if len(changed) == 0 && v.store.Has(i) && (i+1 == v.info.NumPieces() || v.store.Has(i+1)) {
		return
	}
	v.swarm.Post(func(x *exchange.Exchange) {
		x.SetPlayhead(i)
		want := v.wants()
		for _, s := range changed {
			x.Want(s.lo, s.hi, want)
		}
	})
}
