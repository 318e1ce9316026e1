package vfield

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"viver.lan/internal/exchange"
	"viver.lan/internal/piecestore"
	"viver.lan/internal/swarm"
)

// waiting is the swarm as a source: the reads that wait for what no machine has sent
// yet.
type waiting struct {
	swarm *swarm.Swarm
	store *piecestore.Store
	log   *slog.Logger
	// changed says that something else is waited for.
	changed func()

	mu    sync.Mutex // guards the rest, but not the bytes of readers
	waits map[int]*wait
}

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

// Read implements source: it waits until somebody brings the piece.
func (w *waiting) Read(ctx context.Context, i int, p []byte, off int) error {
	r, first := w.add(i, p, off)
	if w.store.Has(i) { // it has just come: the store gives it
		w.remove(i, r)
		return errNotHere
	}
	if first {
		w.updateDemand(i)
	}
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		w.remove(i, r)
		return ctx.Err()
	}
}

// updateDemand has the swarm ask whether somebody waits for piece i: reports of two
// reads might come in the wrong order.
func (w *waiting) updateDemand(i int) {
	w.changed()
	w.swarm.Post(func(x *exchange.Exchange) { x.Demand(i, w.has(i)) })
}

// add registers a read of piece i, and reports whether it is the first one.
func (w *waiting) add(i int, dst []byte, off int) (r *reader, first bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	x := w.waits[i]
	if first = x == nil; first {
		x = &wait{since: time.Now()}
		w.waits[i] = x
	}
	r = &reader{dst: dst, off: off, done: make(chan struct{})}
	x.readers = append(x.readers, r)
	return r, first
}

// remove takes a read back. Nobody writes into its bytes afterwards.
func (w *waiting) remove(i int, r *reader) {
	w.mu.Lock()
	x := w.waits[i]
	delivered := x == nil || !slices.Contains(x.readers, r)
	if !delivered {
		x.readers = slices.DeleteFunc(x.readers, func(q *reader) bool { return q == r })
		if len(x.readers) == 0 {
			delete(w.waits, i)
		}
	}
	w.mu.Unlock()
	if delivered {
		<-r.done
		return
	}
	w.updateDemand(i)
}

// deliver hands a verified piece, in parts, to the reads that wait for it.
func (w *waiting) deliver(i int, parts [][]byte) {
	w.mu.Lock()
	x := w.waits[i]
	delete(w.waits, i)
	w.mu.Unlock()
	if x == nil {
		return
	}
	for _, r := range x.readers {
		copyParts(r.dst, parts, r.off)
		close(r.done)
	}
	w.updateDemand(i)
	if waited := time.Since(x.since); !x.reported.IsZero() {
		w.log.Info("piece arrived", "piece", i, "waited", waited.Round(100*time.Millisecond))
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

// has reports whether somebody waits for piece i.
func (w *waiting) has(i int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.waits[i] != nil
}

// since returns those of the pieces waited for that match, and since when.
func (w *waiting) since(match func(x *wait) bool) map[int]time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make(map[int]time.Time)
	for i, x := range w.waits {
		if match(x) {
			out[i] = x.since
		}
	}
	return out
}

func anyWait(*wait) bool { return true }

// due reports whether a wait is to be reported now, and takes it for reported.
func (x *wait) due() bool {
	if time.Since(x.since) < waitReport || time.Since(x.reported) < waitAgain {
		return false
	}
	x.reported = time.Now()
	return true
}
