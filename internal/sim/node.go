package sim

import (
	"fmt"
	"slices"
	"time"

	"viver.lan/internal/placement"
	"viver.lan/internal/schedule"
)

// node is one machine. It holds what package swarm keeps beside the table.
type node struct {
	id      int32
	origin  bool
	liar    bool
	name    string
	table   *schedule.Table
	conns   []conn // the slot is the scheduler's key
	open    int
	link    link
	inbox   []message // in order of arrival
	wakeAt  time.Duration
	tellAt  time.Duration // when announcements that wait go out; 0: none wait
	hashing time.Duration // the processor is busy until

	taken    schedule.Set // pieces whose bytes are here, verified or not
	asks     []uint8      // requests open, per piece
	demanded []int32      // pieces that the reader waits for
	playhead int
	stale    bool // the owned set does not fit the peers
	owned    time.Duration

	started, finished time.Duration
	dead              bool
}

// conn is one machine's end of a connection.
type conn struct {
	peer, back int32 // the machine at the other end, and its slot for this one
	open       bool
	// What the peer asked of this machine.
	queue   []request
	sending int32
	left    int           // quanta of it
	active  bool          // served by the uplink
	arrival time.Duration // of the last quantum sent
	news    []int32       // pieces the peer is to be told of
	// What this machine asked of the peer.
	owes    []int32
	trusted bool // as known at the last tick
}

type request struct {
	piece  int32
	urgent bool
}

type verb uint8

const (
	have verb = iota
	ask
	askUrgently
	hurry
	cancel
	reject
)

type message struct {
	at    time.Duration
	slot  int32
	piece int32
	verb  verb
}

// post sends a message over connection slot of n, and what has waited there.
func (s *Sim) post(n *node, slot int32, v verb, piece int32) {
	c := &n.conns[slot]
	s.tell(n, c)
	s.deliver(s.nodes[c.peer], message{at: s.now + s.cfg.Latency, slot: c.back, piece: piece, verb: v})
}

func (s *Sim) deliver(r *node, m message) {
	if r.dead {
		return
	}
	r.inbox = append(r.inbox, m)
	at := m.at
	if m.verb == have {
		at += batch
	}
	if r.wakeAt == 0 || r.wakeAt > at {
		r.wakeAt = at
		s.queue.push(event{at: at, kind: mail, node: r.id})
	}
}

// announce tells the peers that n holds a piece, some of them a little later.
func (s *Sim) announce(n *node, piece int32) {
	for k := range n.conns {
		c := &n.conns[k]
		if !c.open || s.nodes[c.peer].finished > 0 { // who has everything takes no more decisions
			continue
		}
		c.news = append(c.news, piece)
		delay := n.table.HaveDelay(schedule.Key(k), int(piece))
		if delay == 0 {
			s.tell(n, c)
			continue
		}
		if at := s.now + delay; n.tellAt == 0 || at < n.tellAt {
			n.tellAt = at
			s.queue.push(event{at: at, kind: tellAll, node: n.id})
		}
	}
}

// tell sends what has waited for company.
func (s *Sim) tell(n *node, c *conn) {
	if len(c.news) == 0 {
		return
	}
	n.link.sending = max(n.link.sending, s.now) + span(headerBytes+int64(len(c.news))*haveBytes, n.link.up)
	r := s.nodes[c.peer]
	for _, i := range c.news {
		if r.table.Held().Has(int(i)) && !r.origin {
			continue // no decision depends on who else has it
		}
		s.deliver(r, message{at: s.now + s.cfg.Latency, slot: c.back, piece: i, verb: have})
	}
	r.link.taking = max(r.link.taking, s.now) + span(headerBytes+int64(len(c.news))*haveBytes, r.link.down)
	c.news = c.news[:0]
}

// readMail takes the messages that have come.
func (s *Sim) readMail(n *node) {
	done := 0
	for ; done < len(n.inbox) && n.inbox[done].at <= s.now; done++ {
		m := n.inbox[done]
		c := &n.conns[m.slot]
		if !c.open {
			continue
		}
		switch m.verb {
		case have:
			s.peerHas(n, m.slot, m.piece)
		case ask, askUrgently:
			s.asked(n, m.slot, request{m.piece, m.verb == askUrgently})
		case hurry:
			if i := slices.IndexFunc(c.queue, func(r request) bool { return r.piece == m.piece }); i >= 0 {
				c.queue[i].urgent = true
			}
		case cancel:
			c.queue = slices.DeleteFunc(c.queue, func(r request) bool { return r.piece == m.piece })
		case reject:
			s.rejected(n, m.slot, m.piece)
		}
	}
	n.inbox = n.inbox[:copy(n.inbox, n.inbox[done:])]
	if len(n.inbox) > 0 && n.wakeAt == 0 {
		n.wakeAt = n.inbox[0].at + batch
		for _, m := range n.inbox {
			if m.verb != have {
				n.wakeAt = min(n.wakeAt, m.at)
				break
			}
		}
		s.queue.push(event{at: n.wakeAt, kind: mail, node: n.id})
	}
}

func (s *Sim) peerHas(n *node, slot, piece int32) {
	if n.origin {
		s.gifts.PeerHas(schedule.Key(slot), int(piece), true, s.now)
		return
	}
	n.table.PeerHas(schedule.Key(slot), int(piece), true)
	if n.asks[piece] == 0 && slices.Contains(n.demanded, piece) {
		s.seek(n, piece, true)
	}
	s.fill(n, slot)
}

// fill asks a peer for as much as it may owe.
func (s *Sim) fill(n *node, slot int32) {
	if n.finished > 0 || !n.conns[slot].open {
		return
	}
	if n.conns[slot].peer == 0 && n.stale {
		s.setOwned(n)
	}
	for {
		i, ok := n.table.Next(schedule.Key(slot), s.now)
		if !ok {
			return
		}
		s.request(n, slot, int32(i))
	}
}

func (s *Sim) fillAll(n *node) {
	if n.finished > 0 || len(n.conns) == 0 {
		return
	}
	first := s.rng.IntN(len(n.conns))
	for i := range n.conns {
		if i += first; i >= len(n.conns) {
			i -= len(n.conns)
		}
		s.fill(n, int32(i))
	}
}

func (s *Sim) seek(n *node, piece int32, urgent bool) {
	if k, ok := n.table.Source(int(piece), s.now, urgent); ok {
		s.request(n, int32(k), piece)
	}
}

// request asks for a piece that the table has noted as asked.
func (s *Sim) request(n *node, slot, piece int32) {
	n.asks[piece]++
	n.conns[slot].owes = append(n.conns[slot].owes, piece)
	v := ask
	if slices.Contains(n.demanded, piece) {
		v = askUrgently
	}
	s.post(n, slot, v, piece)
}

// settle forgets a request and reports whether there was one.
func (n *node) settle(slot, piece int32) bool {
	c := &n.conns[slot]
	i := slices.Index(c.owes, piece)
	if i < 0 {
		return false
	}
	c.owes = slices.Delete(c.owes, i, i+1)
	n.asks[piece]--
	return true
}

// rejected takes the peer's word that it will not send a piece.
func (s *Sim) rejected(n *node, slot, piece int32) {
	if n.settle(slot, piece) {
		n.table.Undone(schedule.Key(slot), int(piece), s.now, rejectFor)
	}
	if slices.Contains(n.demanded, piece) {
		s.seek(n, piece, true)
	}
	s.fill(n, slot)
}

// received takes a piece whose last byte has come.
func (s *Sim) received(n *node, slot, piece int32) {
	c := &n.conns[slot]
	if !c.open {
		return
	}
	asked := n.settle(slot, piece)
	if asked {
		n.table.Done(schedule.Key(slot), int(piece), s.now)
	}
	if !asked || !n.taken.Set(int(piece), true) {
		s.wasted++
		s.fill(n, slot)
		return
	}
	n.table.Settling(int(piece))
	if n.asks[piece] > 0 { // asked of others too
		for k := range n.conns {
			if n.settle(int32(k), piece) {
				n.table.Withdrawn(schedule.Key(k), int(piece), s.now)
				s.post(n, int32(k), cancel, piece)
			}
		}
	}
	s.fill(n, slot)
	n.hashing = max(n.hashing, s.now) + span(s.cfg.PieceBytes, s.cfg.Hash)
	s.queue.push(event{at: n.hashing, kind: pieceChecked, node: n.id, b: piece})
}

// checked has a piece verified and stored.
func (s *Sim) checked(n *node, piece int32) {
	n.table.SetHeld(int(piece), true)
	s.count(piece)
	if i := slices.Index(n.demanded, piece); i >= 0 {
		n.demanded = slices.Delete(n.demanded, i, i+1)
		n.table.Demand(int(piece), false)
	}
	s.announce(n, piece)
	s.read(n)
	s.fillAll(n)
}

// read moves the reader on and demands what it waits for.
func (s *Sim) read(n *node) {
	was := n.playhead
	for n.playhead < s.cfg.Pieces && n.table.Held().Has(n.playhead) {
		n.playhead++
	}
	if n.playhead == s.cfg.Pieces {
		if n.finished == 0 {
			n.finished = s.now
			s.running--
		}
		return
	}
	if n.playhead != was || was == 0 {
		n.table.SetPlayhead(n.playhead)
	}
	for i := n.playhead; i < min(n.playhead+s.cfg.Readers, s.cfg.Pieces); i++ {
		if n.table.Held().Has(i) || slices.Contains(n.demanded, int32(i)) {
			continue
		}
		n.demanded = append(n.demanded, int32(i))
		n.table.Demand(i, true)
		if n.asks[i] == 0 {
			s.seek(n, int32(i), true)
			continue
		}
		for k := range n.conns {
			if slices.Contains(n.conns[k].owes, int32(i)) {
				s.post(n, int32(k), hurry, int32(i))
			}
		}
	}
}

// tick looks after what is late or silent.
func (s *Sim) tick(n *node) {
	if n.finished > 0 {
		return
	}
	s.queue.push(event{at: s.now + tickEvery, kind: tick, node: n.id})
	for k := range n.conns {
		if c := &n.conns[k]; c.open && len(c.owes) > 0 {
			n.table.Progress(schedule.Key(k), min(s.now, s.nodes[c.peer].conns[c.back].arrival))
		}
		if trusted := n.table.Trusted(schedule.Key(k)); trusted != n.conns[k].trusted {
			n.conns[k].trusted = trusted
			n.stale = true
		}
	}
	if n.table.InFlight() > 0 {
		n.table.Stalls(s.now)
		for _, i := range n.table.Late(s.now) {
			s.seek(n, int32(i), slices.Contains(n.demanded, int32(i)))
		}
	}
	for _, i := range n.demanded {
		if n.asks[i] == 0 {
			s.seek(n, i, true)
		}
	}
	s.fillAll(n)
}

// setOwned computes which pieces this node takes from the origin: those it
// owns among the nodes it is connected to.
func (s *Sim) setOwned(n *node) {
	if n.owned > 0 && s.now-n.owned < 10*time.Millisecond {
		return
	}
	n.stale, n.owned = false, s.now
	members := []placement.Node{{ID: n.name, Weight: 1}}
	for k := range n.conns {
		if c := &n.conns[k]; c.open && c.peer != 0 && n.table.Trusted(schedule.Key(k)) {
			members = append(members, placement.Node{ID: s.nodes[c.peer].name, Weight: 1})
		}
	}
	ring := placement.NewRing(members)
	n.table.SetOwned(func(i int) bool { return ring.Owner(i) == 0 })
}

func (s *Sim) newNode(id int) *node {
	n := &node{id: int32(id), name: fmt.Sprint("node ", id), origin: id == 0}
	n.link.up, n.link.down = s.cfg.Link, s.cfg.Link
	n.taken = schedule.NewSet(s.cfg.Pieces)
	n.table = schedule.NewTable(s.cfg.Pieces, s.rng.Uint64(), s.cfg.Params)
	n.asks = make([]uint8, s.cfg.Pieces)
	for i := range s.cfg.Pieces {
		if n.origin {
			n.table.SetHeld(i, true)
		} else {
			n.table.Want(i, true)
		}
	}
	if n.origin {
		n.link.up, n.link.down = s.cfg.OriginLink, s.cfg.OriginLink
	}
	return n
}
