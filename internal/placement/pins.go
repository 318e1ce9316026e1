package placement

import (
	"cmp"
	"slices"
)

// Situation is what a node knows when it decides which pieces to pin.
type Situation struct {
	Image      Image
	Assignment *Assignment
	// Self is the node's ID, Budget its own in bytes.
	Self   string
	Budget int64
	// Settled says that the assignment has stood for a while, so that nobody
	// works by an older one.
	Settled bool
	// Pinned and Held tell the state of a piece here.
	Pinned, Held func(piece int) bool
	// Has reports whether a node, by its number in the assignment, is alive
	// and has a piece, as it says itself.
	Has func(node, piece int) bool
	// Origin reports whether a live first node has a piece.
	Origin func(piece int) bool
}

// PinLimit returns how many pieces may be pinned at a time with this budget:
// more than Capacity, because what has moved stays until it is held elsewhere.
// What is left is enough to read through.
func (im Image) PinLimit(budget int64) int {
	if im.Whole(budget) {
		return im.Pieces
	}
	return int(max(0, min(budget/8*7, budget-2*im.PieceLength)) / im.PieceLength)
}

// Pins returns the pieces to pin: those that are assigned to this node, those
// pinned before that are not yet held by the nodes that they are assigned to
// now, and what nobody else would keep. What is pinned and not held is to be
// fetched.
func Pins(s Situation) []bool {
	pins := make([]bool, s.Image.Pieces)
	self := s.Assignment.Index(s.Self)
	room := s.Image.PinLimit(s.Budget)
	pin := func(p int) {
		if !pins[p] && room > 0 {
			pins[p] = true
			room--
		}
	}
	mine := func(p int) bool { return self >= 0 && s.Assignment.Holds(self, p) }
	for p := range pins {
		if s.Held(p) && s.Pinned(p) && (mine(p) || !s.replaced(p, self)) {
			pin(p)
		}
	}
	for p := range pins {
		if s.Held(p) && mine(p) {
			pin(p)
		}
	}
	for p := range pins {
		if s.Held(p) && !pins[p] && self >= 0 && s.last(p, self) {
			pin(p)
		}
	}
	type missing struct{ piece, copies int }
	var fetch []missing
	for p := range pins {
		if !s.Held(p) && mine(p) {
			fetch = append(fetch, missing{p, s.copies(p, self)})
		}
	}
	slices.SortStableFunc(fetch, func(a, b missing) int { return cmp.Compare(a.copies, b.copies) })
	for _, m := range fetch {
		pin(m.piece)
	}
	return pins
}

// replaced reports whether all who shall hold piece p instead of this node
// have it; where budgets allow nobody to, the first node has to.
func (s Situation) replaced(p, self int) bool {
	if !s.Settled {
		return false
	}
	holders := s.Assignment.Holders(p)
	for _, n := range holders {
		if n != self && !s.Has(n, p) {
			return false
		}
	}
	return len(holders) > 0 || s.Origin(p)
}

// last reports whether this node has to keep a piece although it is not
// assigned to it: the first node does not have it, no holder has it yet, and
// of the others who happen to have it this node ranks first.
func (s Situation) last(p, self int) bool {
	if s.Origin(p) {
		return false
	}
	for _, n := range s.Assignment.Holders(p) {
		if s.Has(n, p) {
			return false
		}
	}
	for n := range s.Assignment.Nodes() {
		if n != self && s.Has(n, p) && s.Assignment.ring.compare(n, self, p) < 0 {
			return false
		}
	}
	return true
}

// copies counts the other holders that have piece p.
func (s Situation) copies(p, self int) (count int) {
	for _, n := range s.Assignment.Holders(p) {
		if n != self && s.Has(n, p) {
			count++
		}
	}
	return count
}

// Expendable scores an unpinned piece: the one with the highest score is
// evicted. age is how long ago it was used, others how many other nodes have
// it: a piece that nobody else has stays up to four times as long.
func Expendable(age uint64, others int) uint64 { return age * uint64(1+min(max(others, 0), 3)) }
