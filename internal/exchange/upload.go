package exchange

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// maxQueue is how many requests of one peer wait here; more are rejected.
const maxQueue = 256

// onRequest takes a request of peer p.
func (x *Exchange) onRequest(p *peer, b wire.Block) error {
	size := x.pieceSize(b.Piece)
	if b.Length <= 0 || b.Length > int(x.cfg.Image.PieceLength) || b.Begin < 0 || b.Begin > size-b.Length {
		return fmt.Errorf("request for %v, the piece has %d bytes", b, size)
	}
	if b.Length < wire.BlockSize {
		p.work++ // small blocks cost as much as large ones
	}
	if slices.Contains(p.queue, b) {
		p.work++
		return nil
	}
	if x.table.PeerPieces(p.key).Has(b.Piece) {
		p.onHave(b.Piece, false)
		x.copies.ledger.Contradicted(p.node, b.Piece, x.now)
	}
	if len(p.queue) >= maxQueue || !x.table.Held().Has(b.Piece) {
		p.reject(b)
		return nil
	}
	p.queue = append(p.queue, b)
	x.do(Offer{To: p.key})
	return nil
}

// onUrgent moves the requests for piece i to the front.
func (p *peer) onUrgent(i int) {
	queued := slices.ContainsFunc(p.queue, func(b wire.Block) bool { return b.Piece == i })
	if !queued && p.opening != i {
		return
	}
	if p.urgentPieces == nil {
		p.urgentPieces = make(map[int]bool)
	}
	p.urgentPieces[i] = true
	p.x.do(Offer{p.key, p.opening >= 0})
}

// onCancel drops a request.
func (p *peer) onCancel(b wire.Block) {
	if n := slices.Index(p.queue, b); n >= 0 {
		p.queue = slices.Delete(p.queue, n, n+1)
		p.reject(b) // BEP 6: every request gets an answer
	}
}

// reject says that a request will not be answered. Peers without the fast
// extension are sent nothing: BEP 3 has no message for it.
func (p *peer) reject(b wire.Block) {
	p.work++
	if p.Fast {
		p.refused = p.kind == schedule.Stranger
		p.send(wire.Message{Type: wire.Reject, Block: b})
	}
}

// Upload is a block to be sent.
type Upload struct {
	Block wire.Block
	// Urgent: somebody waits for it.
	Urgent bool
}

// turnCheck is how often a peer that waits for its turn is checked: sockets do not
// report when they are empty.
const turnCheck = 5 * time.Millisecond

// NextUpload takes the request to answer next from a peer's queue. Those that are
// not to be answered are rejected on the way. When there is none it returns after what
// time to look again, 0 for when an Offer comes. Sent or NotOpened has to
// follow.
func (x *Exchange) NextUpload(k schedule.Key) (u Upload, again time.Duration, ok bool) {
	p := x.byKey[k]
	if p == nil {
		return u, 0, false
	}
	p.held = false
	for len(p.queue) > 0 {
		if p.held = !x.mayTake(p); p.held {
			return u, turnCheck * time.Duration(1+len(x.peers)/32), false // all who wait look at all
		}
		u := p.dequeue()
		if x.maySend(p, u) {
			p.taken++
			x.copies.ledger.Sent(u.Block.Piece)
			p.turn = x.now
			if p.opening = -1; !u.Urgent {
				p.opening = u.Block.Piece
			}
			return u, 0, true
		}
		p.reject(u.Block)
	}
	clear(p.urgentPieces)
	return u, 0, false
}

// dequeue takes the most urgent request off the queue.
func (p *peer) dequeue() Upload {
	n := max(0, slices.IndexFunc(p.queue, func(b wire.Block) bool { return p.urgentPieces[b.Piece] }))
	b := p.queue[n]
	p.queue = slices.Delete(p.queue, n, n+1)
	urgent := p.urgentPieces[b.Piece]
	if urgent && !slices.ContainsFunc(p.queue, func(q wire.Block) bool { return q.Piece == b.Piece }) {
		delete(p.urgentPieces, b.Piece)
	}
	return Upload{b, urgent}
}

// NotOpened says that the piece of an upload could not be opened, or that its
// opening was interrupted.
func (x *Exchange) NotOpened(k schedule.Key, u Upload, interrupted bool) {
	p := x.byKey[k]
	if p == nil {
		return
	}
	p.opening = -1
	p.taken--
	if interrupted {
		p.queue = append(p.queue, u.Block)
	} else {
		p.reject(u.Block)
	}
}

// Sent says that a block went to a peer.
func (x *Exchange) Sent(k schedule.Key, b wire.Block) {
	x.stats.Sent += uint64(b.Length)
	x.changed = true
	if p := x.byKey[k]; p != nil {
		p.taken--
		p.lastSent = x.now
		p.uploaded += uint64(b.Length)
		lane := p.lane
		x.countSent(p, b.Length)
		x.nextTurn(lane)
	}
}

// mayTake reports whether it is p's turn to be sent something.
func (x *Exchange) mayTake(p *peer) bool {
	if !slices.ContainsFunc(x.peers, func(q *peer) bool { return q != p && q.lane == p.lane }) {
		return true // it shares its turn with nobody
	}
	others := x.takings[:0]
	var last *peer // of its lane, to be served
	n := 0
	for _, q := range x.peers {
		if q == p || q.turn == 0 && len(q.queue) == 0 {
			continue
		}
		if q.lane == p.lane && q.turn > 0 && (last == nil || q.turn > last.turn) {
			last, n = q, len(others)
		}
		others = append(others, q.taking())
	}
	if last != nil && !others[n].Sending && x.cfg.Unsent != nil {
		others[n].Sending = x.cfg.Unsent(last.key)
	}
	x.takings = others
	return schedule.MayTake(p.taking(), others, x.now)
}

func (p *peer) taking() schedule.Taking {
	return schedule.Taking{Lane: p.lane, Turn: p.turn, Sending: p.taken > 0, Waiting: len(p.queue) > 0}
}

// nextTurn lets one of a lane look again whose turn it was not: the one that has waited
// for longest. All the others would see that it goes first, or will look by themselves
// (turnCheck); and each look costs as much as there are peers.
func (x *Exchange) nextTurn(lane schedule.Lane) {
	var next *peer
	for _, p := range x.peers {
		if p.held && p.lane == lane && len(p.queue) > 0 && !p.closing && (next == nil || p.turn < next.turn) {
			next = p
		}
	}
	if next != nil {
		x.do(Offer{To: next.key})
	}
}

// nextTurns lets all look again whose turn it was not.
func (x *Exchange) nextTurns() {
	for _, p := range x.peers {
		if p.held {
			x.do(Offer{To: p.key})
		}
	}
}

// countSent counts n bytes that went to p and decides whose turn it shares: an address
// needs the image once, and now and then a part of it again.
func (x *Exchange) countSent(p *peer, n int) {
	const again = 5 * time.Minute
	host, size := p.Addr.Addr(), float64(x.cfg.Image.Size)
	needed := x.takers.Of(host, x.now, rate.Limit(size/again.Seconds()), int(size+size/8)).AllowN(Clock(x.now), n)
	if !needed && x.table.Given(p.key) == 0 {
		p.lane = schedule.Lane{Taker: true}
	} else {
		p.lane = schedule.Lane{Host: host}
	}
}

// maySend applies the origin's rule: a piece leaves it once.
func (x *Exchange) maySend(p *peer, u Upload) bool {
	if !x.cfg.Origin {
		return true
	}
	others := 0
	for _, q := range x.peers {
		if q != p && len(q.queue)+q.taken > 0 {
			others++
		}
	}
	gone := func(k schedule.Key) bool { return x.byKey[k] == nil }
	return x.seeding.MaySend(p.key, p.kind, u.Block.Piece, u.Urgent, others, gone, x.now)
}
