package vfield

import (
	"context"
	"fmt"

	"viver.lan/internal/exchange"
)

// ReadAt fills p with the payload's bytes from off on. What is not here is
// fetched; while nobody can send it, ReadAt waits, and says so. It returns an
// error only for a range outside the payload or when ctx ends.
func (v *Volume) ReadAt(ctx context.Context, p []byte, off int64) error {
	if off < 0 || off > v.info.Size-int64(len(p)) {
		return fmt.Errorf("read %d bytes at %d: the volume has %d", len(p), off, v.info.Size)
	}
	for len(p) > 0 {
		i := int(off / v.info.PieceLength)
		from := int(off - v.info.PieceOffset(i))
		n := min(len(p), int(v.info.PieceSize(i))-from)
		if err := v.readPiece(ctx, i, p[:n], from); err != nil {
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

// setPlayhead notes where this node reads, so that what follows comes first.
func (v *Volume) setPlayhead(i int) {
	was := int(v.ahead.playhead.Swap(int64(i)))
	if was == i {
		return
	}
	v.swarm.Post(func(x *exchange.Exchange) { x.SetPlayhead(i) })
	if v.medium != nil || v.store.fitsAll() && !v.demandOnly.Load() {
		return
	}
	cache := int(v.store.Budget()/v.info.PieceLength) - v.replicas.pinned()
	for _, s := range v.ahead.advance(was, i, cache) {
		if s.lo < s.hi {
			v.updateWanted(s.lo, s.hi)
		}
	}
}
