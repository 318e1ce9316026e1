package vfield

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"viver.lan/internal/exchange"
	"viver.lan/internal/metainfo"
)

// mediumCache is how many pieces read from the medium stay in memory for
// those who ask for the next part of the same piece.
const mediumCache = 16

// The medium is tried again after it has failed: it may have been put back.
const (
	mediumRetry    = 5 * time.Second
	mediumRetryMax = 5 * time.Minute
	mediumTries    = 2 // reads of a piece before it counts as bad
	// mediumPatience is how long what a peer asks for may wait for the reader to
	// come by. A peer that gets nothing for 3 s takes this node for stalled.
	mediumPatience = 1500 * time.Millisecond
	goneAfter      = 3 // pieces that fail in a row before the medium counts as gone
	// A disc may need some seconds to spin up. A stick that hangs for longer
	// must not keep readers from the peers.
	mediumHangs = 10 * time.Second
)

var errMedium = errors.New("the medium does not have this piece")

// medium reads verified pieces from the boot medium. One goroutine reads, in
// the order of the medium as far as it can, because a disc seeks slowly.
type medium struct {
	r    io.ReaderAt
	info *metainfo.Info
	log  *slog.Logger
	// wanted reports whether a piece should be read ahead into the store.
	wanted func(i int) bool
	// onRead gets every verified piece, onLost the pieces that can no longer
	// be had, onFound those that can again.
	onRead  func(i int, data []byte)
	onLost  func(i int)
	onFound func(i int)

	wake chan struct{}
	now  func() time.Time // by which mediumPatience is measured

	mu     sync.Mutex
	jobs   map[int]*job
	bad    map[int]string // pieces that cannot be read, and why
	gone   bool           // the medium does not answer
	inRow  []int          // pieces that failed one after the other
	read64 uint64         // bytes read and verified
	recent []cached
	ahead  int       // next piece to read ahead
	head   int       // piece after the one read last
	since  time.Time // when the running read began, zero when none runs
	last   time.Time // when a piece was read
}

type job struct {
	urgent  bool
	unasked bool // read because it was there
	since   time.Time
	done    chan struct{}
	data    []byte
	err     error
}

type cached struct {
	piece int
	data  []byte
}

func newMedium(r io.ReaderAt, info *metainfo.Info, log *slog.Logger) *medium {
	return &medium{r: r, info: info, log: log, wake: make(chan struct{}, 1), now: time.Now, jobs: make(map[int]*job), bad: make(map[int]string)}
}

// restAfter is how long nothing was read from a medium that rests.
const restAfter = 30 * time.Second

// rests reports whether nobody needs the medium.
func (m *medium) rests() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.gone && len(m.jobs) == 0 && time.Since(m.last) > restAfter
}

// has reports whether the medium is believed to have piece i.
func (m *medium) has(i int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.hasLocked(i)
}

func (m *medium) hasLocked(i int) bool { return !m.gone && m.bad[i] == "" }

// read returns piece i, verified. The caller must not change it.
func (m *medium) read(ctx context.Context, i int, urgent bool) ([]byte, error) {
	m.mu.Lock()
	for _, c := range m.recent {
		if c.piece == i {
			m.mu.Unlock()
			return c.data, nil
		}
	}
	if !m.hasLocked(i) {
		m.mu.Unlock()
		return nil, errMedium
	}
	j := m.ask(i, urgent)
	m.mu.Unlock()
	select {
	case <-j.done:
		return j.data, j.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ask makes or joins the job that reads piece i. It runs with m.mu held.
func (m *medium) ask(i int, urgent bool) *job {
	j := m.jobs[i]
	if j == nil {
		j = &job{since: m.now(), done: make(chan struct{})}
		m.jobs[i] = j
	}
	j.urgent, j.unasked = j.urgent || urgent, false
	select {
	case m.wake <- struct{}{}:
	default:
	}
	return j
}

// run reads what is asked for and, when nothing is, ahead.
func (m *medium) run(ctx context.Context) error {
	pause := mediumRetry
	retry := time.NewTimer(pause)
	defer retry.Stop()
	for ctx.Err() == nil {
		i, j := m.next()
		if i >= 0 {
			data, err := m.fetch(ctx, i)
			m.settle(i, j, data, err)
			continue
		}
		select {
		case <-ctx.Done():
		case <-m.wake:
		case <-retry.C:
			if m.probe(ctx) {
				pause = min(2*pause, mediumRetryMax) // for a loose contact
			}
			retry.Reset(pause)
		}
	}
	return ctx.Err()
}

// next returns the piece to read now and its job, or -1; see pickRead.
func (m *medium) next() (int, *job) {
	m.mu.Lock()
	defer m.mu.Unlock()
	ahead := -1
	if !m.gone {
		for m.ahead < m.info.NumPieces() && (m.bad[m.ahead] != "" || !m.wanted(m.ahead)) {
			m.ahead++
		}
		if m.ahead < m.info.NumPieces() {
			ahead = m.ahead
		}
	}
	now := m.now()
	var asks []ask
	for i, j := range m.jobs {
		asks = append(asks, ask{piece: i, urgent: j.urgent, due: now.Sub(j.since) > mediumPatience})
	}
	i := pickRead(m.head, ahead, asks, func(i int) bool { return m.bad[i] != "" })
	if i < 0 {
		return -1, nil
	}
	if i == ahead {
		m.ahead++ // once, whether it can be kept or not
	}
	j := m.jobs[i]
	if j == nil {
		j = &job{since: now, unasked: true, done: make(chan struct{})}
		m.jobs[i] = j
	}
	return i, j
}

// fetch reads and verifies a piece.
func (m *medium) fetch(ctx context.Context, i int) ([]byte, error) {
	m.running(true)
	defer m.running(false)
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

var errWrong = errors.New("wrong bytes")

func (m *medium) running(on bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.since = time.Time{}
	if on {
		m.since = time.Now()
	}
}

// watch gives the medium up for now when a read hangs. The read itself cannot
// be ended; what it brings in the end is still taken.
func (m *medium) watch() {
	m.mu.Lock()
	if m.gone || m.since.IsZero() || time.Since(m.since) < mediumHangs {
		m.mu.Unlock()
		return
	}
	lost := m.leave()
	m.mu.Unlock()
	for _, l := range lost {
		m.onLost(l)
	}
}

// leave notes that the medium is gone, ends all jobs and returns the pieces
// that are lost with it. It runs with m.mu held.
func (m *medium) leave() []int {
	m.gone = true
	m.log.Error("the medium does not answer any more; what is not in memory comes from other nodes")
	var lost []int
	for i := range m.info.NumPieces() {
		if m.bad[i] == "" {
			lost = append(lost, i)
		}
	}
	for i, j := range m.jobs {
		j.err = errMedium
		close(j.done)
		delete(m.jobs, i)
	}
	return lost
}

// settle ends the job for piece i.
func (m *medium) settle(i int, j *job, data []byte, err error) {
	m.mu.Lock()
	keep := err == nil && (!j.unasked || m.wanted(i))
	m.mu.Unlock()
	if keep {
		m.onRead(i, data) // into the store before anyone asks again
	}
	m.mu.Lock()
	current := m.jobs[i] == j // not given up meanwhile
	if current {
		delete(m.jobs, i)
	}
	m.head, m.last = i+1, time.Now()
	var lost []int
	switch {
	case err == nil:
		m.read64 += uint64(len(data))
		m.inRow = m.inRow[:0]
		m.recent = append(m.recent, cached{i, data})
		if len(m.recent) > mediumCache {
			m.recent = slices.Delete(m.recent, 0, 1)
		}
	case errors.Is(err, context.Canceled):
	default:
		lost = m.fails(i, err)
	}
	m.mu.Unlock()
	if current {
		j.data, j.err = data, err
		close(j.done)
	}
	for _, l := range lost {
		m.onLost(l)
	}
}

// fails notes that piece i cannot be read and returns the pieces that are
// lost with it.
func (m *medium) fails(i int, err error) []int {
	m.bad[i] = err.Error()
	off := m.info.PieceOffset(i)
	m.log.Error("the medium is damaged here, asking the other nodes for this piece",
		"piece", i, "offset", off, "end", off+m.info.PieceSize(i)-1, "err", err)
	if errors.Is(err, errWrong) {
		m.inRow = m.inRow[:0] // it answers, so it is there
		return []int{i}
	}
	m.inRow = append(m.inRow, i)
	if len(m.inRow) < goneAfter || m.gone {
		return []int{i}
	}
	for _, l := range m.inRow {
		delete(m.bad, l) // not their fault
	}
	return m.leave()
}

// probe looks whether a medium that was gone is back. It tries pieces at
// random, because the kernel remembers some of those read before.
func (m *medium) probe(ctx context.Context) bool {
	m.mu.Lock()
	gone, row := m.gone, slices.Clone(m.inRow)
	m.mu.Unlock()
	if !gone || !m.answers(ctx) {
		return false
	}
	back := make(map[int]bool)
	for _, i := range row {
		_, err := m.fetch(ctx, i)
		back[i] = err == nil
	}
	m.mu.Lock()
	m.gone, m.inRow, m.ahead = false, nil, 0
	var found []int
	for i := range m.info.NumPieces() {
		if ok, tried := back[i]; tried && !ok {
			m.bad[i] = "read error"
		} else if m.bad[i] == "" {
			found = append(found, i)
		}
	}
	m.mu.Unlock()
	m.log.Info("the medium answers again")
	for _, i := range found {
		m.onFound(i)
	}
	return true
}

// answers reports whether one of a few pieces can be read.
func (m *medium) answers(ctx context.Context) bool {
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
	for i := range m.bad {
		bad = append(bad, i)
	}
	slices.Sort(bad)
	return m.read64, bad, m.gone
}

// mediumLost wants from the peers what the medium no longer gives.
func (v *Volume) mediumLost(i int) {
	v.swarm.Changed(i)
	if v.roomy() && !v.store.Has(i) {
		v.swarm.Do(func(x *exchange.Exchange) { x.Want(i, i+1, func(int) bool { return true }) })
	}
}

// mediumFound announces what the medium gives again and reads what somebody
// waits for; the bytes reach the reader through keep.
func (v *Volume) mediumFound(i int) {
	v.swarm.Changed(i)
	v.mu.Lock()
	_, waited := v.waiting[i]
	v.mu.Unlock()
	if waited {
		v.medium.mu.Lock()
		v.medium.ask(i, true)
		v.medium.mu.Unlock()
	}
}
