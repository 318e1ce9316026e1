package vfield

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"viver.lan/internal/metainfo"
)

const (
	// mediumCache is how many pieces read from the medium stay in memory for
	// those who ask for the next part of the same piece.
	mediumCache = 16
	mediumTries = 2 // reads of a piece before it counts as bad
	goneAfter   = 3 // pieces that fail in a row before the medium counts as gone
	// The medium is tried again after it has failed: it may have been put back.
	mediumRetry    = 5 * time.Second
	mediumRetryMax = 5 * time.Minute
	// mediumPatience is how long what a peer asks for may wait for the reader to
	// come by. A peer that gets nothing for 3 s takes this node for stalled.
	mediumPatience = 1500 * time.Millisecond
	// A disc may need some seconds to spin up. A stick that hangs for longer
	// must not keep readers from the peers.
	mediumHangs = 10 * time.Second
	// idleAfter is how long nothing was read from a medium that is idle.
	idleAfter = 30 * time.Second
)

var errWrong = errors.New("wrong bytes")

// medium is the boot medium as a source. One goroutine reads all pieces, in the
// order of the medium as far as it can, because a disc seeks slowly; those who want
// a piece wait for its read.
type medium struct {
	r    io.ReaderAt
	info *metainfo.Info
	log  *slog.Logger
	now  func() time.Time // by which mediumPatience is measured
	wake chan struct{}

	again atomic.Bool // all that is wanted is to be read ahead, from the beginning

	// Of the goroutine that reads.
	ahead       int           // next piece to read ahead
	head        int           // piece after the one read last
	failedInRow []int         // pieces that failed one after the other
	pause       time.Duration // until a medium that is gone is tried again

	mu     sync.Mutex // guards what follows
	reads  map[int]*mediumRead
	recent []*mediumRead // the last that brought a piece
	bad    map[int]bool  // pieces that cannot be read
	gone   bool          // the medium does not answer
	read64 uint64        // bytes read and verified
	since  time.Time     // when the read that runs began, zero when none does
	last   time.Time     // when a piece was read
}

// mediumRead is a read of a piece, to come or done.
type mediumRead struct {
	piece    int
	urgent   bool
	prefetch bool // nobody has asked for it
	since    time.Time
	done     chan struct{}
	data     []byte
	err      error
}

func newMedium(r io.ReaderAt, info *metainfo.Info, log *slog.Logger) *medium {
	return &medium{r: r, info: info, log: log, now: time.Now, wake: make(chan struct{}, 1), pause: mediumRetry,
		reads: make(map[int]*mediumRead), bad: make(map[int]bool)}
}

// isIdle reports whether nobody has needed the medium for a while.
func (m *medium) isIdle() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.gone && len(m.reads) == 0 && time.Since(m.last) > idleAfter
}

// has reports whether the medium is believed to have piece i.
func (m *medium) has(i int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.gone && !m.bad[i]
}

// Read implements source.
func (m *medium) Read(ctx context.Context, i int, p []byte, off int) error {
	data, err := m.open(ctx, i, true)
	copy(p, data[min(off, len(data)):])
	return err
}

// open returns piece i, verified, when it has been read.
func (m *medium) open(ctx context.Context, i int, urgent bool) (inMemory, error) {
	r := m.request(i, urgent)
	if r == nil {
		return nil, errNotHere
	}
	select {
	case <-r.done:
		return r.data, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type inMemory []byte

func (inMemory) File() (*os.File, int64) { return nil, 0 }
func (m inMemory) Bytes() []byte         { return m }
func (inMemory) Release()                {}

// request returns the read of piece i: one of a moment ago, one that somebody else
// wants, or a new one; nil when the medium does not have the piece.
func (m *medium) request(i int, urgent bool) *mediumRead {
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := slices.IndexFunc(m.recent, func(r *mediumRead) bool { return r.piece == i }); n >= 0 {
		return m.recent[n]
	}
	if m.gone || m.bad[i] {
		return nil
	}
	r := m.begin(i, now)
	r.urgent, r.prefetch = r.urgent || urgent, false
	m.wakeReader()
	return r
}

// readOn has pieces read ahead that were not wanted before.
func (m *medium) readOn() {
	m.again.Store(true)
	m.wakeReader()
}

func (m *medium) wakeReader() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// begin returns the read of piece i that is to come. It runs with m.mu held.
func (m *medium) begin(i int, now time.Time) *mediumRead {
	r := m.reads[i]
	if r == nil {
		r = &mediumRead{piece: i, prefetch: true, since: now, done: make(chan struct{})}
		m.reads[i] = r
	}
	return r
}

// await waits until there may be something to read, and tries a medium that is gone
// now and then: it reports whether that is back.
func (m *medium) await(ctx context.Context) bool {
	select {
	case <-ctx.Done():
	case <-m.wake:
	case <-time.After(m.pause): // nobody wakes a medium that is gone
		return m.probe(ctx)
	}
	return false
}

// next returns the read to do now: of a piece that is asked for, else of the next
// that is wanted; nil when there is none. See pickRead.
func (m *medium) next(wanted func(i int) bool) *mediumRead {
	n := m.info.NumPieces()
	if m.again.Swap(false) {
		m.ahead = 0
	}
	for m.ahead < n && !(m.has(m.ahead) && wanted(m.ahead)) {
		m.ahead++
	}
	ahead := m.ahead
	if ahead == n {
		ahead = -1
	}
	now := m.now()
	m.mu.Lock()
	defer m.mu.Unlock()
	var requests []request
	for i, r := range m.reads {
		requests = append(requests, request{piece: i, urgent: r.urgent, due: now.Sub(r.since) > mediumPatience})
	}
	i := pickRead(m.head, ahead, requests, func(i int) bool { return m.bad[i] })
	if i < 0 {
		return nil
	}
	if i == ahead {
		m.ahead++ // once, whether it can be kept or not
	}
	m.since = time.Now()
	return m.begin(i, now)
}

// fetch reads and verifies a piece.
func (m *medium) fetch(ctx context.Context, i int) ([]byte, error) {
	data := make([]byte, m.info.PieceSize(i))
	var err error
	for range mediumTries {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if n, rerr := m.r.ReadAt(data, m.info.PieceOffset(i)); n < len(data) {
			err = fmt.Errorf("read error: %w", rerr)
			continue
		}
		if m.info.Verify(i, data) {
			return data, nil
		}
		err = errWrong
	}
	return nil, err
}

// checkHang takes the medium for gone when a read hangs, and reports whether it has.
// The read itself cannot be ended; what it brings in the end is still taken.
func (m *medium) checkHang() bool {
	m.mu.Lock()
	hangs := !m.since.IsZero() && time.Since(m.since) >= mediumHangs
	m.mu.Unlock()
	return hangs && m.markGone()
}

// markGone ends all reads, and reports whether the medium was thought present.
func (m *medium) markGone() bool {
	m.mu.Lock()
	present := !m.gone
	m.gone = true
	for _, r := range m.reads {
		r.err = errNotHere
		close(r.done)
	}
	clear(m.reads)
	m.mu.Unlock()
	if present {
		m.log.Error("the medium does not answer any more; what is not in memory comes from other nodes")
	}
	return present
}

// answered notes that the medium has answered, and reports whether somebody has
// asked for what is read.
func (m *medium) answered(r *mediumRead) (requested bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.since, m.last = time.Time{}, time.Now()
	return !r.prefetch
}

// isAsked reports whether somebody has asked for what is to be read.
func (m *medium) isAsked(r *mediumRead) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !r.prefetch
}

// answer ends a read for which the medium was not needed.
func (m *medium) answer(r *mediumRead, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.since = time.Time{}
	if m.reads[r.piece] == r { // else markGone has ended it
		delete(m.reads, r.piece)
		r.data = data
		close(r.done)
	}
}

// finish ends a read, and returns which pieces are lost by what came of it.
func (m *medium) finish(r *mediumRead, data []byte, err error) (lo, hi int) {
	m.head = r.piece + 1
	switch {
	case err == nil:
		m.failedInRow = nil
	case !errors.Is(err, context.Canceled):
		lo, hi = m.onReadError(r.piece, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.reads[r.piece] != r { // ended by markGone
		r = &mediumRead{piece: r.piece, done: make(chan struct{})}
	}
	delete(m.reads, r.piece)
	r.data, r.err = data, err
	close(r.done)
	if err == nil {
		m.read64 += uint64(len(data))
		m.recent = append(slices.Delete(m.recent, 0, max(0, len(m.recent)+1-mediumCache)), r)
	}
	return lo, hi
}

// onReadError notes that piece i cannot be read, and returns which pieces are lost
// with it.
func (m *medium) onReadError(i int, err error) (lo, hi int) {
	off := m.info.PieceOffset(i)
	m.log.Error("the medium is damaged here, asking the other nodes for this piece",
		"piece", i, "offset", off, "end", off+m.info.PieceSize(i)-1, "error", err)
	m.failedInRow = append(m.failedInRow, i)
	if errors.Is(err, errWrong) {
		m.failedInRow = nil // it answers, so it is there
	}
	gone := len(m.failedInRow) >= goneAfter
	m.mu.Lock()
	m.bad[i] = true
	if gone {
		for _, l := range m.failedInRow {
			delete(m.bad, l) // not their fault
		}
	}
	m.mu.Unlock()
	if !gone {
		return i, i + 1
	}
	m.markGone()
	return 0, m.info.NumPieces()
}

// probe looks whether a medium that was gone is back. It tries pieces at
// random, because the kernel remembers some of those read before.
func (m *medium) probe(ctx context.Context) bool {
	m.mu.Lock()
	gone := m.gone
	m.mu.Unlock()
	if !gone || !m.responds(ctx) {
		return false
	}
	var bad []int
	for _, i := range m.failedInRow {
		if _, err := m.fetch(ctx, i); err != nil {
			bad = append(bad, i)
		}
	}
	m.failedInRow, m.ahead = nil, 0
	m.pause = min(2*m.pause, mediumRetryMax) // for a loose contact
	m.log.Info("the medium answers again")
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = false
	for _, i := range bad {
		m.bad[i] = true
	}
	return true
}

// responds reports whether one of a few pieces can be read.
func (m *medium) responds(ctx context.Context) bool {
	for range 3 {
		if _, err := m.fetch(ctx, rand.IntN(m.info.NumPieces())); err == nil || errors.Is(err, errWrong) {
			return true
		}
	}
	return false
}

// status returns the bytes read, the pieces known bad and whether the medium
// is gone.
func (m *medium) status() (read uint64, bad []int, gone bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.read64, slices.Sorted(maps.Keys(m.bad)), m.gone
}
