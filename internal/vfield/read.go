package vfield

import (
	"context"
	"fmt"
	"slices"
	"time"

	"viver.lan/internal/exchange"
	"viver.lan/internal/piecestore"
)

// wait is a piece that reads wait for.
type wait struct {
	since    time.Time
	reported time.Time
	readers  []*reader
}

// reader is one read of one piece.
type reader struct {
	dst  []byte
	off  int
	done chan struct{}
}

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

func (v *Volume) readPiece(ctx context.Context, i int, dst []byte, off int) error {
	v.move(i)
	for {
		if v.readStored(i, dst, off) {
			return nil
		}
		if v.medium != nil {
			data, err := v.medium.read(ctx, i, true)
			if err == nil {
				copy(dst, data[off:])
				return nil
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			// The peers have it, perhaps: wait for them.
		}
		r := v.await(i, dst, off)
		if r == nil {
			continue // it has just come
		}
		select {
		case <-r.done:
			return nil
		case <-ctx.Done():
			v.abandon(i, r)
			return ctx.Err()
		}
	}
}

// readStored reads from the store if it holds piece i.
func (v *Volume) readStored(i int, dst []byte, off int) bool {
	ref, ok := v.acquire(i)
	if !ok {
		return false
	}
	err := ref.ReadAt(dst, int64(off))
	ref.Release()
	if err == nil {
		return true
	}
	v.unreadable(i, err)
	return false
}

// acquire opens piece i if the store holds it, and hashes it before if the
// store has only found it in its file.
func (v *Volume) acquire(i int) (piecestore.Ref, bool) {
	ref, ok := v.store.Acquire(i)
	if !ok && v.rehash(i) {
		ref, ok = v.store.Acquire(i)
	}
	return ref, ok
}

// rehash hashes piece i if nobody has since it was found in the store's file,
// and tells peers what came out. It reports whether the piece is held.
func (v *Volume) rehash(i int) bool {
	ok, err := v.store.Recheck(i)
	if ok {
		v.swarm.Changed(i)
		return true
	}
	v.swarm.Changed(i)
	if err != nil && v.share.inDoubt() { // else a daemon that was killed left it half written
		v.storeStrike(err)
	}
	return false
}

// unreadable forgets a piece that the store cannot read any more: it is
// fetched again when somebody needs it. A disk that fails once may have lost
// more, and may not even say so: all else is hashed again.
func (v *Volume) unreadable(i int, err error) {
	v.log.Error("the piece store cannot read what it holds, forgetting the piece", "piece", i, "err", err)
	v.discard(i)
	if v.share.doubt() {
		v.store.Distrust()
	}
	v.storeStrike(err)
}

// discard forgets piece i and tells peers.
func (v *Volume) discard(i int) {
	if err := v.store.Drop(i); err != nil {
		v.log.Error("piece store", "err", err)
	}
	v.swarm.Changed(i)
}

// move notes where this node reads, so that what follows comes first.
func (v *Volume) move(i int) {
	was := int(v.playhead.Swap(int64(i)))
	if was == i {
		return
	}
	v.swarm.Do(func(x *exchange.Exchange) { x.SetPlayhead(i) })
	if v.roomy() || v.medium != nil {
		return
	}
	// Little room: only a reader that goes forward has something fetched ahead.
	ahead := 0
	if i == was+1 {
		ahead = readAhead
	}
	v.readAheadOf(i, ahead)
}

// await registers a read of piece i; the first one asks the swarm for it. It
// returns nil when the piece has come meanwhile.
func (v *Volume) await(i int, dst []byte, off int) *reader {
	v.mu.Lock()
	if v.store.Has(i) {
		v.mu.Unlock()
		return nil
	}
	r := &reader{dst: dst, off: off, done: make(chan struct{})}
	w := v.waiting[i]
	first := w == nil
	if first {
		w = &wait{since: time.Now()}
		v.waiting[i] = w
	}
	w.readers = append(w.readers, r)
	v.mu.Unlock()
	if first {
		v.syncDemand(i)
	}
	return r
}

// abandon takes a read back.
func (v *Volume) abandon(i int, r *reader) {
	v.mu.Lock()
	if w := v.waiting[i]; w != nil {
		w.readers = slices.DeleteFunc(w.readers, func(q *reader) bool { return q == r })
		if len(w.readers) == 0 {
			delete(v.waiting, i)
		}
	}
	v.mu.Unlock()
	v.syncDemand(i)
}

// syncDemand tells the swarm whether somebody waits for piece i now. Calls
// take turns, so that the last one tells the truth.
func (v *Volume) syncDemand(i int) {
	v.demand.Lock()
	defer v.demand.Unlock()
	v.mu.Lock()
	_, waited := v.waiting[i]
	v.mu.Unlock()
	v.swarm.Do(func(x *exchange.Exchange) { x.Demand(i, waited) })
}

// deliver hands a verified piece, in parts, to the reads that wait for it.
func (v *Volume) deliver(i int, parts [][]byte) {
	v.mu.Lock()
	w := v.waiting[i]
	delete(v.waiting, i)
	if w != nil {
		for _, r := range w.readers {
			copyParts(r.dst, parts, r.off)
			close(r.done)
		}
	}
	v.mu.Unlock()
	if w == nil {
		return
	}
	v.syncDemand(i)
	if waited := time.Since(w.since); !w.reported.IsZero() {
		v.log.Info("piece arrived", "piece", i, "waited", waited.Round(100*time.Millisecond))
	}
}

// copyParts fills dst from the concatenation of parts, from off on.
func copyParts(dst []byte, parts [][]byte, off int) {
	for _, p := range parts {
		if off >= len(p) {
			off -= len(p)
			continue
		}
		n := copy(dst, p[off:])
		dst, off = dst[n:], 0
	}
}
