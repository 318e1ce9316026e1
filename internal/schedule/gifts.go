package schedule

import "time"

// Gifts is an origin's memory of the pieces that it sent and to which node.
// It holds the rule that a piece leaves the origin once: the node that got it
// announces it and passes it on. Like Table it is pure and not safe for
// concurrent use; the zero value remembers nothing.
type Gifts struct {
	pieces  map[int]*gift
	pending map[Key]int   // pieces on their way to a node
	usual   time.Duration // from a piece's first byte to its HAVE, smoothed
}

type gift struct {
	to    Key
	began time.Duration
	told  time.Duration // when the node said that it has the piece, 0 before
}

// Admit decides whether the origin answers the request of peer k, of the
// given kind, for piece i, and if so remembers that. urgent says that somebody
// waits for the piece, others how many other peers wait for something from here,
// and gone whether the connection to a peer has ended.
func (g *Gifts) Admit(k Key, kind Kind, i int, urgent bool, others int, gone func(Key) bool, now time.Duration) bool {
	u := Upload{Stranger: kind != Node, Urgent: urgent, Others: others, Usual: g.usual}
	for n, pieces := range g.pending {
		switch {
		case gone(n):
			delete(g.pending, n)
		case n != k && pieces > 0:
			u.Others++
		}
	}
	p := g.pieces[i]
	if p != nil && p.to != k && !gone(p.to) {
		u.Given, u.Pending, u.Ago = true, p.told == 0, now-max(p.began, p.told)
	}
	if !Admit(u) {
		return false
	}
	if kind == Node && (p == nil || p.to != k) {
		if g.pieces == nil {
			g.pieces, g.pending = make(map[int]*gift), make(map[Key]int)
		}
		g.settle(p)
		g.pieces[i] = &gift{to: k, began: now}
		g.pending[k]++
	}
	return true
}

// settle notes that a gift is no longer on its way.
func (g *Gifts) settle(p *gift) {
	if p != nil && p.told == 0 && g.pending[p.to] > 0 {
		g.pending[p.to]--
	}
}

// PeerHas notes that peer k says that it has piece i, or has it no more.
func (g *Gifts) PeerHas(k Key, i int, has bool, now time.Duration) {
	p := g.pieces[i]
	switch {
	case p == nil || p.to != k:
	case !has:
		g.settle(p)
		delete(g.pieces, i) // it will not pass the piece on any more
	case p.told == 0:
		g.settle(p)
		p.told = now
		smooth(&g.usual, now-p.began)
	}
}

// Upload is what an origin knows about a request when it decides to answer.
type Upload struct {
	// Stranger peers know nothing of owners.
	Stranger bool
	// Urgent: somebody waits for the piece.
	Urgent bool
	// Given: the piece went to another node that is still connected.
	Given bool
	// Pending: that node has not announced it yet.
	Pending bool
	// Ago is the time since it was announced or, when pending, since sending
	// it began.
	Ago time.Duration
	// Usual is how long it takes from beginning to announcement.
	Usual time.Duration
	// Others is how many other peers wait for something from the origin.
	Others int
}

// Admit decides whether the origin sends a piece: once to one node, which
// passes it on. Again only when that seems to have failed, or when the origin
// has nothing else to do. How long ago a node announced the piece counts, not
// how long ago the origin sent it: sockets and links hold seconds of data, and
// readers that go through the image together would have the origin send every
// piece twice.
func Admit(u Upload) bool {
	const lost = 10 * time.Second // no healthy node keeps a piece for that long
	settle := max(500*time.Millisecond, 2*u.Usual)
	switch {
	case u.Stranger || !u.Given:
		return true
	case u.Pending:
		return u.Ago > lost || u.Urgent && u.Ago > settle
	case u.Urgent:
		return u.Others == 0 || u.Ago > settle
	default:
		return u.Others == 0 && u.Ago > 2*settle
	}
}
