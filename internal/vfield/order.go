package vfield

// In which order the medium is read. A disc needs about 100 ms to go anywhere
// else than on, in which it would have read several pieces: so reading goes on
// where it is, and what is asked for is mostly waited for, not fetched. This
// is pure policy; medium holds the state.

// readThrough is how many pieces nobody needs are read rather than skipped.
const readThrough = 4

// waitOnTheWay is how many pieces farther on one may be that was asked for long ago, and
// still wait until reading comes by: 4 MiB, half a second of a slow disc. To seek there
// and back takes as long as to read eleven.
const waitOnTheWay = 32

// request is a piece that somebody wants from the medium.
type request struct {
	piece int
	// urgent: a process waits for it. due: it was asked for long ago.
	urgent, due bool
}

// pickRead returns the piece to read next, or -1 when there is nothing to do:
// what a process waits for, what was asked for long ago and is not near in front, what
// comes next, and when all that is to be read ahead has been, what else is asked for. head is
// the piece before which the medium stands, ahead the next one to be read
// ahead, -1 for none; skip says which pieces cannot be read.
func pickRead(head, ahead int, requests []request, skip func(i int) bool) int {
	target := nearest(head, requests, func(r request) bool { return r.urgent })
	if target < 0 {
		target = nearest(head, requests, func(r request) bool { return r.due })
		if head <= ahead && ahead < target && target-head <= waitOnTheWay {
			target = ahead
		}
	}
	if target < 0 {
		target = ahead
	}
	if target < 0 {
		target = nearest(head, requests, func(request) bool { return true })
	}
	if head < target && target-head <= readThrough && !skip(head) {
		return head
	}
	return target
}

// nearest returns the first piece from head on of the requests that match, else
// the first of all of them, in the order of an elevator (C-SCAN); -1 when there is
// none.
func nearest(head int, requests []request, match func(request) bool) int {
	best := -1
	for _, r := range requests {
		if match(r) && (best < 0 || elevatorBefore(head, r.piece, best)) {
			best = r.piece
		}
	}
	return best
}

// elevatorBefore reports whether an elevator that goes up from head, and then begins
// again at the bottom, passes a before b.
func elevatorBefore(head, a, b int) bool {
	if (a >= head) != (b >= head) {
		return a >= head
	}
	return a < b
}
