package schedule

import "time"

// SuperSeeder is an origin's memory of the pieces that it sent and to which node.
// It holds the rule of super-seeding (BEP 16) that a piece leaves the origin once: the
// node that got it announces it and passes it on. Like Table it is pure and not safe
// for concurrent use; the zero value remembers nothing.
type SuperSeeder struct {
	pieces  map[int]*seeded
	pending map[Key]int   // pieces on their way to a node
	usual   time.Duration // from a piece's first byte to its HAVE, smoothed
}

// seeded is a piece that was sent to a node.
type seeded struct {
	to    Key
	began time.Duration
	have  time.Duration // when the node announced the piece, 0 before
}

// MaySend decides whether the origin answers the request of peer k, of the
// given kind, for piece i, and if so remembers that. urgent says that somebody
// waits for the piece, others how many other peers wait for something from here,
// and gone whether the connection to a peer has ended.
func (s *SuperSeeder) MaySend(k Key, kind Kind, i int, urgent bool, others int, gone func(Key) bool, now time.Duration) bool {
	u := upload{stranger: kind != Node, urgent: urgent, others: others, usual: s.usual}
	for n, pieces := range s.pending {
		switch {
		case gone(n):
			delete(s.pending, n)
		case n != k && pieces > 0:
			u.others++
		}
	}
	p := s.pieces[i]
	if p != nil && p.to != k && !gone(p.to) {
		u.given, u.pending, u.ago = true, p.have == 0, now-max(p.began, p.have)
	}
	if !u.maySend() {
		return false
	}
	if kind == Node && (p == nil || p.to != k) {
		if s.pieces == nil {
			s.pieces, s.pending = make(map[int]*seeded), make(map[Key]int)
		}
		s.endPending(p)
		s.pieces[i] = &seeded{to: k, began: now}
		s.pending[k]++
	}
	return true
}

// endPending notes that a piece is no longer on its way.
func (s *SuperSeeder) endPending(p *seeded) {
	if p != nil && p.have == 0 && s.pending[p.to] > 0 {
		s.pending[p.to]--
	}
}

// PeerHas notes that peer k announces piece i, or has it no more.
func (s *SuperSeeder) PeerHas(k Key, i int, has bool, now time.Duration) {
	p := s.pieces[i]
	switch {
	case p == nil || p.to != k:
	case !has:
		s.endPending(p)
		delete(s.pieces, i) // it will not pass the piece on any more
	case p.have == 0:
		s.endPending(p)
		p.have = now
		smooth(&s.usual, now-p.began)
	}
}

// upload is what an origin knows about a request when it decides to answer.
type upload struct {
	stranger bool          // strangers know nothing of owners
	urgent   bool          // somebody waits for the piece
	given    bool          // the piece went to another node, which is still connected,
	pending  bool          // and has not announced it yet
	ago      time.Duration // since it was announced or, when pending, since sending it began
	usual    time.Duration // from beginning to announcement
	others   int           // peers that wait for something else from the origin
}

// maySend decides whether the origin sends a piece: once to one node, which
// passes it on. Again only when that seems to have failed, or when the origin
// has nothing else to do. How long ago a node announced the piece counts, not
// how long ago the origin sent it: sockets and links hold seconds of data, and
// readers that go through the image together would have the origin send every
// piece twice.
func (u upload) maySend() bool {
	const lost = 10 * time.Second // no healthy node keeps a piece for that long
	spread := max(500*time.Millisecond, 2*u.usual)
	switch {
	case u.stranger || !u.given:
		return true
	case u.pending:
		return u.ago > lost || u.urgent && u.ago > spread
	case u.urgent:
		return u.others == 0 || u.ago > spread
	default:
		return u.others == 0 && u.ago > 2*spread
	}
}
