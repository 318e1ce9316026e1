package placement

import (
	"cmp"
	"slices"

	"viver.lan/internal/identity"
)

// Situation is what a node knows when it decides which pieces to pin.
type Situation struct {
	Image      Image
	Assignment *Assignment
	// Self is the node's ID, Budget its own in bytes.
	Self   identity.ID
	Budget int64
	// Stable says that the assignment is old enough for all nodes to use it.
	Stable bool
	// Pinned and Held tell the state of a piece here.
	Pinned, Held func(piece int) bool
	// Claims reports whether a node, by its number in the assignment, is alive,
	// trusted (see package copies), and claims to have a piece. It decides what is
	// fetched first, and the eviction score of a cached piece.
	Claims func(node, piece int) bool
	// Proved reports whether a node claims a piece and has proved lately that it has
	// this very piece. Only then this node unpins it.
	Proved func(node, piece int) bool
	// Origin reports whether a live and trusted first node has a piece.
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
// pinned before that the nodes that they are assigned to now have not proved to
// hold, and what nobody else would keep. What is pinned and not held is to be
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
		if s.Held(p) && !pins[p] && self >= 0 && s.last(p, self, s.Claims) {
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
	// Pieces that others claim but have not proved take the room that is left.
	for p := range pins {
		if s.Held(p) && !pins[p] && self >= 0 && s.last(p, self, s.Proved) {
			pin(p)
		}
	}
	return pins
}

// Doubt is an unproved claim because of which this node keeps a piece pinned.
type Doubt struct {
	Node, Piece int
}

// Doubts returns the claims that have to be proved before this node unpins pieces
// that are not assigned to it: those pinned before come first. A piece that no other
// node claims is not among them.
func Doubts(s Situation, pins []bool) []Doubt {
	var moved, cached []Doubt
	self := s.Assignment.Index(s.Self)
	for p := range pins {
		if self < 0 || !pins[p] || !s.Held(p) || s.Assignment.Holds(self, p) {
			continue
		}
		doubts, all := s.doubts(p, self)
		switch {
		case s.Stable && all:
			moved = append(moved, doubts...)
		case len(doubts) > 0: // one of them is enough for a cached piece
			cached = append(cached, doubts[0])
		}
	}
	return append(moved, cached...)
}

// doubts returns which of those who claim piece p, the holders first, have not
// proved it, and whether all holders claim it.
func (s Situation) doubts(p, self int) (doubts []Doubt, all bool) {
	holders := s.Assignment.Holders(p)
	all = len(holders) > 0
	doubt := func(n int) bool {
		claimed := n != self && s.Claims(n, p)
		if claimed && !s.Proved(n, p) {
			doubts = append(doubts, Doubt{n, p})
		}
		return claimed
	}
	for _, n := range holders {
		all = doubt(n) && all
	}
	for n := range s.Assignment.Nodes() {
		if !all && !slices.Contains(holders, n) && s.Assignment.ring.compare(n, self, p) < 0 {
			doubt(n)
		}
	}
	return doubts, all
}

// replaced reports whether all who shall hold piece p instead of this node
// proved that they have it; where budgets allow nobody to, the first node has to.
func (s Situation) replaced(p, self int) bool {
	if !s.Stable {
		return false
	}
	holders := s.Assignment.Holders(p)
	for _, n := range holders {
		if n != self && !s.Proved(n, p) {
			return false
		}
	}
	return len(holders) > 0 || s.Origin(p)
}

// last reports whether this node has to keep a piece although it is not
// assigned to it: the first node does not have it, no holder has it yet, and
// of the others who happen to have it this node ranks first. has says who does.
func (s Situation) last(p, self int, has func(node, piece int) bool) bool {
	if s.Origin(p) {
		return false
	}
	for _, n := range s.Assignment.Holders(p) {
		if has(n, p) {
			return false
		}
	}
	for n := range s.Assignment.Nodes() {
		if n != self && has(n, p) && s.Assignment.ring.compare(n, self, p) < 0 {
			return false
		}
	}
	return true
}

// copies counts the other holders that claim piece p.
func (s Situation) copies(p, self int) (count int) {
	for _, n := range s.Assignment.Holders(p) {
		if n != self && s.Claims(n, p) {
			count++
		}
	}
	return count
}

// EvictionScore is the score of an unpinned piece: the one with the highest score is
// evicted. age is the time since its last use, others the number of other nodes that
// have it: a piece that no other node has stays up to four times as long.
func EvictionScore(age uint64, others int) uint64 { return age * uint64(1+min(max(others, 0), 3)) }
