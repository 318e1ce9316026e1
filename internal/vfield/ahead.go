package vfield

import "sync/atomic"

// maxAhead is how many pieces are fetched ahead of a reader by a node that cannot
// hold the whole image.
const maxAhead = 8

// span is the pieces from lo up to hi.
type span struct{ lo, hi int }

// readAhead is what a node that cannot hold the whole image has fetched ahead of its
// reader. It only remembers that: the volume tells the swarm.
type readAhead struct {
	playhead atomic.Int64 // the piece read last
	window   atomic.Pointer[span]
}

// advance has what follows piece i fetched when the reader goes forward, from piece
// was, and nothing when it jumps. cache is how many pieces the store has room for
// beside those that it pins: the window takes a part of them only, so that they do
// not push each other out. It returns where something may have changed.
func (a *readAhead) advance(was, i, cache int) []span {
	next := span{i + 1, i + 1}
	if i == was+1 {
		next.hi += min(maxAhead, max(cache/4, 0))
	}
	if before := a.window.Swap(&next); before != nil {
		return []span{*before, next}
	}
	return []span{next}
}

// covers reports whether piece i is to be fetched ahead.
func (a *readAhead) covers(i int) bool {
	w := a.window.Load()
	return w != nil && w.lo <= i && i < w.hi
}
