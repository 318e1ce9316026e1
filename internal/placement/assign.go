package placement

import (
	"cmp"
	"container/heap"
	"slices"

	"viver.lan/internal/identity"
)

// Image is what has to be placed.
type Image struct {
	Pieces      int
	PieceLength int64 // bytes; the last piece may be shorter
	Size        int64 // bytes
}

// Copies returns how many nodes shall pin each piece in a network of so many.
func Copies(nodes int) int {
	if nodes > 100 {
		return 5
	}
	return 4
}

// Whole reports whether a node with this budget keeps the whole image.
func (im Image) Whole(budget int64) bool { return budget >= im.Size }

// Capacity returns how many pieces a node with this budget pins at most: all,
// or what three quarters of the budget hold. The rest is its cache, and the
// room in which a piece waits for its replacement.
func (im Image) Capacity(budget int64) int {
	if im.Whole(budget) {
		return im.Pieces
	}
	return int(min(max(0, min(budget/4*3, budget-4*im.PieceLength))/im.PieceLength, int64(im.Pieces)))
}

// Assignment says which node pins which pieces. It is immutable. Nodes are
// numbered in the order of their IDs.
type Assignment struct {
	image   Image
	nodes   []Node
	ring    *Ring
	whole   []int     // nodes that keep everything
	holders [][]int32 // per piece: the other nodes that pin it, best first
	offer   int64
}

// Assign distributes the pieces of an image: every node whose budget holds the
// image keeps all of it, the others add to that until each piece has the given
// number of copies. A node that is full leaves the piece to the next in rank.
// Where the budgets cannot hold that many copies all pieces get as many as all
// can have, and some, the same for everybody, one more.
func Assign(im Image, nodes []Node, copies int) *Assignment {
	nodes = slices.Clone(nodes)
	slices.SortStableFunc(nodes, byName)
	nodes = slices.CompactFunc(nodes, func(a, b Node) bool { return a.ID == b.ID })
	a := &Assignment{image: im, nodes: nodes, ring: NewRing(nodes), holders: make([][]int32, im.Pieces)}
	var room []int // per node, in pieces; 0 for those that keep everything
	slots, small := 0, 0
	for n, node := range nodes {
		c := im.Capacity(node.Weight)
		a.offer += min(int64(c)*im.PieceLength, im.Size)
		if im.Whole(node.Weight) {
			a.whole = append(a.whole, n)
			c = 0
		}
		room = append(room, c)
		slots += c
		if c > 0 {
			small++
		}
	}
	copies = min(copies-len(a.whole), small)
	if copies > 0 {
		a.match(room, quotas(im.Pieces, slots, copies))
	}
	return a
}

func byName(a, b Node) int { return a.ID.Compare(b.ID) }

// quotas returns how many copies each piece shall get.
func quotas(pieces, slots, copies int) []int {
	q := make([]int, pieces)
	each, more := copies, 0
	if slots < copies*pieces {
		each, more = slots/pieces, slots%pieces
	}
	order := make([]int, pieces)
	for p := range order {
		order[p] = p
		q[p] = each
	}
	if more > 0 {
		key := func(p int) uint64 { return mix(uint64(p) + 0x51ed270b0a1f39c1) }
		slices.SortFunc(order, func(a, b int) int { return cmp.Compare(key(a), key(b)) })
		for _, p := range order[:more] {
			q[p]++
		}
	}
	return q
}

// offer is a piece at a node, with the node's score for it.
type offer struct {
	score float64
	piece int
}

func (o offer) before(p offer) bool {
	return o.score < p.score || o.score == p.score && o.piece < p.piece
}

// offers is a heap with the worst offer on top.
type offers []offer

func (o offers) Len() int           { return len(o) }
func (o offers) Less(i, j int) bool { return o[i].before(o[j]) }
func (o offers) Swap(i, j int)      { o[i], o[j] = o[j], o[i] }
func (o *offers) Push(x any)        { *o = append(*o, x.(offer)) }
func (o *offers) Pop() any {
	last := (*o)[len(*o)-1]
	*o = (*o)[:len(*o)-1]
	return last
}

// match is deferred acceptance (Gale and Shapley): pieces ask nodes in the order of
// their rank; a full node keeps those that it scores highest and refuses the others.
// The result does not depend on the order of asking, and a change of one node moves
// few pieces.
func (a *Assignment) match(room, quota []int) {
	var nodes []int
	for n, c := range room {
		if c > 0 {
			nodes = append(nodes, n)
		}
	}
	kept := make([]offers, len(a.nodes))
	ranks := make([]rank, len(quota))
	var asking, short []int
	for p, q := range quota {
		for range q {
			asking = append(asking, p)
		}
	}
	for len(asking) > 0 {
		p := asking[len(asking)-1]
		asking = asking[:len(asking)-1]
		n, score, ok := ranks[p].next(a.ring, nodes, p)
		if !ok {
			short = append(short, p)
			continue
		}
		o := offer{score, p}
		switch h := &kept[n]; {
		case len(*h) < room[n]:
			heap.Push(h, o)
		case (*h)[0].before(o):
			asking = append(asking, (*h)[0].piece)
			(*h)[0] = o
			heap.Fix(h, 0)
		default:
			asking = append(asking, p)
		}
	}
	slices.Sort(short)
	for _, p := range short {
		exchange(kept, room, p)
	}
	for n := range kept {
		for _, o := range kept[n] {
			a.holders[o.piece] = append(a.holders[o.piece], int32(n))
		}
	}
	for p := range a.holders {
		slices.SortFunc(a.holders[p], func(x, y int32) int { return a.ring.compare(int(x), int(y), p) })
	}
}

// exchange places a copy of piece p when all nodes with room hold it already:
// another piece moves there and leaves its place to p.
func exchange(kept []offers, room []int, p int) {
	holds := func(n, p int) bool {
		return slices.ContainsFunc(kept[n], func(o offer) bool { return o.piece == p })
	}
	for x := range kept {
		if len(kept[x]) >= room[x] {
			continue
		}
		for y := range kept {
			if y == x || holds(y, p) {
				continue
			}
			for i, q := range kept[y] {
				if !holds(x, q.piece) {
					kept[x] = append(kept[x], q)
					kept[y][i] = offer{0, p}
					return
				}
			}
		}
	}
}

// rank lists nodes for a piece, best first, a few at a time.
type rank struct {
	batch []offer // node numbers in the place of the piece
	at    int
	last  offer
	begun bool
}

// batchSize is how many ranks are computed together.
const batchSize = 12

// next returns the next node in rank.
func (r *rank) next(ring *Ring, nodes []int, p int) (node int, score float64, ok bool) {
	if r.at == len(r.batch) {
		r.fill(ring, nodes, p)
	}
	if r.at == len(r.batch) {
		return 0, 0, false
	}
	o := r.batch[r.at]
	r.at++
	return o.piece, o.score, true
}

func (r *rank) fill(ring *Ring, nodes []int, p int) {
	r.batch, r.at = r.batch[:0], 0
	h := (*offers)(&r.batch)
	for _, n := range nodes {
		o := offer{ring.score(n, p), n}
		switch {
		case r.begun && !o.before(r.last): // given out before
		case len(*h) < batchSize:
			heap.Push(h, o)
		case (*h)[0].before(o):
			(*h)[0] = o
			heap.Fix(h, 0)
		}
	}
	slices.SortFunc(r.batch, func(a, b offer) int {
		if b.before(a) {
			return -1
		}
		return 1
	})
	if len(r.batch) > 0 {
		r.begun, r.last = true, r.batch[len(r.batch)-1]
	}
}

// Nodes returns the nodes, ordered by ID. They must not be changed.
func (a *Assignment) Nodes() []Node { return a.nodes }

// Index returns the number of the node with this ID, or -1.
func (a *Assignment) Index(id identity.ID) int {
	i, ok := slices.BinarySearchFunc(a.nodes, Node{ID: id}, byName)
	if !ok {
		return -1
	}
	return i
}

// Whole reports whether a node keeps the whole image.
func (a *Assignment) Whole(node int) bool { return a.image.Whole(a.nodes[node].Weight) }

// Holds reports whether a node shall pin a piece.
func (a *Assignment) Holds(node, piece int) bool {
	return a.Whole(node) || slices.Contains(a.holders[piece], int32(node))
}

// Holders returns the nodes that shall pin a piece, those that keep everything
// first, the others best first.
func (a *Assignment) Holders(piece int) []int {
	out := slices.Clone(a.whole)
	for _, n := range a.holders[piece] {
		out = append(out, int(n))
	}
	return out
}

// Owner returns the best of a piece's holders, which fetches it from the origin for
// all, or -1.
func (a *Assignment) Owner(piece int) int {
	owner := -1
	for _, n := range a.whole {
		if owner < 0 || a.ring.compare(n, owner, piece) < 0 {
			owner = n
		}
	}
	if h := a.holders[piece]; len(h) > 0 && (owner < 0 || a.ring.compare(int(h[0]), owner, piece) < 0) {
		owner = int(h[0])
	}
	return owner
}

// Fewest returns the smallest number of copies that a piece shall have.
func (a *Assignment) Fewest() int {
	fewest := len(a.nodes)
	for _, h := range a.holders {
		fewest = min(fewest, len(a.whole)+len(h))
	}
	return fewest
}

// Offer returns how many bytes the nodes pin together at most, each counted up
// to the size of the image.
func (a *Assignment) Offer() int64 { return a.offer }

// Short reports whether the nodes together have no room for the whole image.
func (a *Assignment) Short() bool { return a.Fewest() == 0 }
