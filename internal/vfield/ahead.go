package vfield

import "sync/atomic"

const (
	// maxAhead is how many pieces are fetched ahead of a reader that goes forward, once it
	// has done so for a while: one at first, then twice as many with each piece. Most
	// files end before that.
	maxAhead = 8
	// maxExpected is how many pieces are fetched ahead of one that reads in an expected
	// order: some 4 MiB, more than a slow machine reads in the time that a piece takes.
	maxExpected = 32
)

// span is the pieces from lo up to hi.
type span struct{ lo, hi int }

// readAhead is what a node that does not fetch the whole image, or not yet, fetches
// ahead of its reader. It only remembers that: the volume tells the swarm.
type readAhead struct {
	playhead atomic.Int64 // the piece read last
	forward  atomic.Int64 // how many pieces before it were read one after the other
	window   atomic.Pointer[span]
	expected atomic.Pointer[expected]
}

// expected is the order in which pieces are thought to be read.
type expected struct {
	order []int
	at    map[int]int  // positions in order
	next  atomic.Int64 // the position after the furthest one that was read
	room  atomic.Int64 // how many pieces from there on are fetched
}

func newExpected(order []int) *expected {
	e := &expected{at: make(map[int]int)}
	for _, i := range order {
		if _, twice := e.at[i]; !twice {
			e.at[i] = len(e.order)
			e.order = append(e.order, i)
		}
	}
	e.room.Store(maxExpected)
	return e
}

// advance has what follows piece i fetched when the reader goes forward, from piece
// was, and nothing when it jumps; and what is expected next. What follows a piece that was
// expected is not guessed: if it were read, it would be expected too. cache is how many
// pieces the store has room for beside those that it pins: each takes a part of them only,
// so that they do not push each other out. It returns where something may have changed.
func (a *readAhead) advance(was, i, cache int) []span {
	e := a.expected.Load()
	next := span{i + 1, i + 1}
	switch {
	case i != was+1:
		a.forward.Store(0)
	case !e.has(i):
		steps := min(int(a.forward.Add(1)), maxAhead) - 1
		next.hi += min(1<<steps, maxAhead, max(cache/4, 0))
	}
	var changed []span
	if before := a.window.Swap(&next); before != nil {
		changed = append(changed, *before)
	}
	return append(append(changed, next), e.advance(i, cache)...)
}

// has reports whether piece i is expected at some time.
func (e *expected) has(i int) bool {
	if e == nil {
		return false
	}
	_, ok := e.at[i]
	return ok
}

func (e *expected) advance(i, cache int) (changed []span) {
	if e == nil {
		return nil
	}
	position, ok := e.at[i]
	before, next := e.end(), e.next.Load()
	if !ok || int64(position) < next || !e.next.CompareAndSwap(next, int64(position)+1) {
		return nil // it is no news, or another read has gone further
	}
	e.room.Store(int64(min(maxExpected, max(cache/4, 0))))
	for _, piece := range e.order[before:max(before, e.end())] {
		changed = append(changed, span{piece, piece + 1})
	}
	return changed
}

// end is the position after the last one that is fetched.
func (e *expected) end() int { return min(int(e.next.Load()+e.room.Load()), len(e.order)) }

// covers reports whether piece i is to be fetched ahead.
func (a *readAhead) covers(i int) bool {
	if w := a.window.Load(); w != nil && w.lo <= i && i < w.hi {
		return true
	}
	e := a.expected.Load()
	if e == nil {
		return false
	}
	position, ok := e.at[i]
	return ok && position < e.end()
}
