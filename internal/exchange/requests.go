package exchange

import (
	"cmp"
	"slices"

	"viver.lan/internal/swarm/wire"
)

// requests are what a peer was asked for and owes yet: the pieces in the order in
// which they were asked for. A piece of 16 MiB is a thousand blocks to a stranger, so a
// block is looked for among those of its piece only, and by halves there.
type requests []owed

// owed are blocks of one piece, in the order of the piece.
type owed struct {
	piece  int
	blocks []wire.Block
}

// find returns where block b is, n < 0 when it is not owed.
func (r requests) find(b wire.Block) (n, m int) {
	if n = r.piece(b.Piece); n < 0 {
		return n, 0
	}
	m, found := slices.BinarySearchFunc(r[n].blocks, b, func(o, b wire.Block) int { return cmp.Compare(o.Begin, b.Begin) })
	if !found || r[n].blocks[m] != b {
		return -1, 0
	}
	return n, m
}

// piece returns which of the pieces is i, -1 when none is.
func (r requests) piece(i int) int {
	return slices.IndexFunc(r, func(o owed) bool { return o.piece == i })
}

// add adds blocks of a piece of which nothing is owed, in the order of the piece.
func (r *requests) add(i int, blocks []wire.Block) { *r = append(*r, owed{i, blocks}) }

// forget drops block b. It reports whether it was owed, and whether then nothing of
// its piece is.
func (r *requests) forget(b wire.Block) (was, done bool) {
	n, m := r.find(b)
	if n < 0 {
		return false, false
	}
	o := &(*r)[n]
	if o.blocks = slices.Delete(o.blocks, m, m+1); len(o.blocks) > 0 {
		return true, false
	}
	*r = slices.Delete(*r, n, n+1)
	return true, true
}

// remove drops all of piece i and returns it.
func (r *requests) remove(i int) (blocks []wire.Block) {
	if n := r.piece(i); n >= 0 {
		blocks = (*r)[n].blocks
		*r = slices.Delete(*r, n, n+1)
	}
	return blocks
}
