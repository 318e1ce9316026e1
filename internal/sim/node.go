package sim

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"viver.lan/internal/exchange"
	"viver.lan/internal/identity"
	"viver.lan/internal/placement"
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// node is one machine: the exchange that runs on every node, and what this
// simulation has in place of connections, a store and a reader.
type node struct {
	id      int32
	origin  bool
	liar    bool
	key     identity.Public
	addr    netip.AddrPort
	x       *exchange.Exchange
	hello   wire.Hello
	acting  bool // its commands are being carried out
	conns   []conn
	open    int
	link    link
	inbox   []message // in order of arrival
	batch   []wire.Message
	wakeAt  time.Duration
	alarm   time.Duration // when the exchange wants to be woken, 0: never
	hashing time.Duration // the processor is busy until

	reading  []int32 // pieces that the reader waits for
	playhead int

	started, finished time.Duration
	dead              bool
}

// conn is one machine's end of a connection.
type conn struct {
	peer, back int32 // the machine at the other end, and its slot for this one
	open       bool
	sending    int32
	left       int           // quanta of it
	active     bool          // served by the uplink
	arrival    time.Duration // of the last quantum sent
	news       []int32       // pieces the peer is to be told of
}

// key is the exchange's name for a connection.
func key(slot int32) schedule.Key { return schedule.Key(slot + 1) }

// message is a wire.Message on its way, without what most have not.
type message struct {
	at    time.Duration
	other *wire.Message // one that is about no piece as a whole
	slot  int32
	piece int32
	about wire.Type
}

// newNode makes a machine: the origin first. It and liars say that they have all
// pieces, the others want them.
func (s *Sim) newNode(liar bool) *node {
	id := len(s.nodes)
	n := &node{id: int32(id), origin: id == 0, liar: liar}
	for i := 0; i < len(n.key); i += 8 {
		binary.BigEndian.PutUint64(n.key[i:], s.rng.Uint64())
	}
	var ip [4]byte
	binary.BigEndian.PutUint32(ip[:], 10<<24+uint32(id)+1)
	n.addr = netip.AddrPortFrom(netip.AddrFrom4(ip), 6881)
	n.link.up, n.link.down = s.cfg.Link, s.cfg.Link
	if n.origin {
		n.link.up, n.link.down = s.cfg.OriginLink, s.cfg.OriginLink
	}
	image := placement.Image{Pieces: s.cfg.Pieces, PieceLength: s.cfg.PieceBytes, Size: s.cfg.PieceBytes * int64(s.cfg.Pieces)}
	n.x = exchange.New(exchange.Config{
		Image: image, Key: n.key, Listen: n.addr, Origin: n.origin, Budget: image.Size, Params: s.cfg.Params, Seed: n.key,
	})
	if !n.origin && !liar {
		n.x.Want(0, s.cfg.Pieces, func(int) bool { return true })
	}
	for i := 0; (n.origin || liar) && i < s.cfg.Pieces; i++ {
		n.x.SetHeld(i, true)
	}
	s.nodes = append(s.nodes, n)
	return n
}

func (s *Sim) whole(piece int32) wire.Block {
	return wire.Block{Piece: int(piece), Length: int(s.cfg.PieceBytes)}
}

// act has f report something to n's exchange and carries out what follows.
func (s *Sim) act(n *node, f func(x *exchange.Exchange)) {
	n.x.SetTime(s.now)
	f(n.x)
	s.obey(n)
}

// obey carries out commands until there are none.
func (s *Sim) obey(n *node) {
	if n.acting {
		return
	}
	n.acting = true
	for commands := n.x.Commands(); len(commands) > 0; commands = n.x.Commands() {
		for _, c := range commands {
			s.carryOut(n, c)
		}
	}
	n.acting = false
}

func (s *Sim) carryOut(n *node, c exchange.Command) {
	switch c := c.(type) {
	case exchange.Send:
		s.send(n, int32(c.To)-1, c.Message)
	case exchange.Announce:
		for _, k := range c.To {
			s.announce(n, int32(k)-1, int32(c.Piece), c.Later)
		}
	case exchange.SendAll:
		for k := range n.conns {
			s.sendHaves(n, &n.conns[k])
		}
	case exchange.WakeAt:
		n.alarm = c.Time
		s.queue.push(event{at: c.Time, kind: alarm, node: n.id})
	case exchange.Offer:
		s.activate(n, int32(c.To)-1)
	case exchange.Close:
		s.cut(n, int32(c.To)-1)
	case exchange.Dial:
		if !s.connect(n, s.nodes[0]) {
			s.act(n, func(x *exchange.Exchange) { x.DialEnded(c.To, errBusy) })
		}
	case exchange.Answer: // hashing is left out, and a liar has nothing to answer with
		held, err := n.x.Held().Has(c.Asked.Piece), error(nil)
		if !held || n.liar {
			err = errNothing
		}
		n.x.Answered(c, [wire.DigestSize]byte{}, err, held)
	case exchange.Check:
		n.x.Checked(c.Asked, true, nil)
	}
}

var (
	errBusy    = errors.New("no room")
	errNothing = errors.New("no such piece")
)

// announce tells a machine of a piece, at once or later.
func (s *Sim) announce(n *node, slot, piece int32, later bool) {
	c := &n.conns[slot]
	if !c.open || s.nodes[c.peer].finished > 0 { // who has everything takes no more decisions
		return
	}
	if c.news = append(c.news, piece); !later {
		s.sendHaves(n, c)
	}
}

// send puts a message on a connection, and what has waited there.
func (s *Sim) send(n *node, slot int32, m wire.Message) {
	c := &n.conns[slot]
	if !c.open {
		return
	}
	switch m.Type {
	case wire.Interested, wire.NotInterested: // nobody minds
	case wire.Request, wire.Cancel, wire.Reject:
		s.sendHaves(n, c)
		s.deliver(s.nodes[c.peer], message{at: s.now + s.cfg.Latency, slot: c.back, piece: int32(m.Block.Piece), about: m.Type})
	default:
		other := m
		s.sendHaves(n, c)
		s.deliver(s.nodes[c.peer], message{at: s.now + s.cfg.Latency, slot: c.back, other: &other, about: m.Type})
	}
}

func (s *Sim) deliver(r *node, m message) {
	if r.dead {
		return
	}
	r.inbox = append(r.inbox, m)
	at := m.at
	if m.about == wire.Have {
		at += batch
	}
	if r.wakeAt == 0 || r.wakeAt > at {
		r.wakeAt = at
		s.queue.push(event{at: at, kind: mail, node: r.id})
	}
}

// sendHaves sends the HAVEs that have waited to travel together.
func (s *Sim) sendHaves(n *node, c *conn) {
	if len(c.news) == 0 {
		return
	}
	n.link.sending = max(n.link.sending, s.now) + span(headerBytes+int64(len(c.news))*haveBytes, n.link.up)
	r := s.nodes[c.peer]
	for _, i := range c.news {
		if r.x.Held().Has(int(i)) && !r.origin {
			continue // no decision depends on who else has it
		}
		s.deliver(r, message{at: s.now + s.cfg.Latency, slot: c.back, piece: i, about: wire.Have})
	}
	r.link.taking = max(r.link.taking, s.now) + span(headerBytes+int64(len(c.news))*haveBytes, r.link.down)
	c.news = c.news[:0]
}

// readMail takes the messages that have come, those of one machine that came
// together at once.
func (s *Sim) readMail(n *node) {
	done := 0
	for done < len(n.inbox) && n.inbox[done].at <= s.now {
		slot := n.inbox[done].slot
		n.batch = n.batch[:0]
		for ; done < len(n.inbox) && n.inbox[done].at <= s.now && n.inbox[done].slot == slot; done++ {
			s.read1(n, n.inbox[done])
		}
		if len(n.batch) > 0 && n.conns[slot].open {
			s.act(n, func(x *exchange.Exchange) { x.Messages(key(slot), n.batch) })
		}
	}
	n.inbox = n.inbox[:copy(n.inbox, n.inbox[done:])]
	if len(n.inbox) > 0 && n.wakeAt == 0 {
		n.wakeAt = n.inbox[0].at + batch
		for _, m := range n.inbox {
			if m.about != wire.Have {
				n.wakeAt = min(n.wakeAt, m.at)
				break
			}
		}
		s.queue.push(event{at: n.wakeAt, kind: mail, node: n.id})
	}
}

// read1 takes one message: into the batch, unless it is a machine's hello, which
// is followed by the proof of its key, or for a liar, who has rules of its own.
func (s *Sim) read1(n *node, m message) {
	switch {
	case !n.conns[m.slot].open:
	case m.other != nil && m.about == wire.Extended && m.other.ExtendedID == wire.IDHandshake:
		r := s.nodes[n.conns[m.slot].peer]
		if r.hello.Client == "" { // it says the same to all
			r.hello, _ = wire.ParseHello(m.other.Payload)
		}
		s.act(n, func(x *exchange.Exchange) {
			x.Hello(key(m.slot), r.hello)
			x.Proved(key(m.slot), r.key, true)
		})
	case n.liar && m.about == wire.Request:
		if n.id%2 == 1 {
			s.send(n, m.slot, wire.Message{Type: wire.Reject, Block: s.whole(m.piece)})
		}
	case m.other != nil:
		n.batch = append(n.batch, *m.other)
	case m.about == wire.Have:
		n.batch = append(n.batch, wire.Message{Type: wire.Have, Block: wire.Block{Piece: int(m.piece)}})
	default:
		n.batch = append(n.batch, wire.Message{Type: m.about, Block: s.whole(m.piece)})
	}
}

// received takes a piece whose last byte has come.
func (s *Sim) received(n *node, slot, piece int32) {
	if !n.conns[slot].open {
		return
	}
	s.act(n, func(x *exchange.Exchange) {
		if _, complete := x.BlockArrived(key(slot), s.whole(piece), nil, nil); complete != nil {
			n.hashing = max(n.hashing, s.now) + span(s.cfg.PieceBytes, s.cfg.Hash)
			s.queue.push(event{at: n.hashing, kind: pieceChecked, node: n.id, b: piece})
		}
	})
}

// checked has a piece verified and stored.
func (s *Sim) checked(n *node, piece int32) {
	s.count(piece)
	s.act(n, func(x *exchange.Exchange) {
		x.Verified(exchange.Verdict{Piece: int(piece), Right: true, Held: true})
		s.read(n)
	})
}

// read moves the reader on and demands what it waits for.
func (s *Sim) read(n *node) {
	held, was := n.x.Held(), n.playhead
	for n.playhead < s.cfg.Pieces && held.Has(n.playhead) {
		n.playhead++
	}
	waiting := n.reading[:0]
	for _, i := range n.reading {
		if held.Has(int(i)) {
			n.x.Demand(int(i), false)
		} else {
			waiting = append(waiting, i)
		}
	}
	n.reading = waiting
	if n.playhead == s.cfg.Pieces {
		if n.finished == 0 {
			n.finished = s.now
			s.running--
		}
		return
	}
	if n.playhead != was || was == 0 {
		n.x.SetPlayhead(n.playhead)
	}
	for i := n.playhead; i < min(n.playhead+s.cfg.Readers, s.cfg.Pieces); i++ {
		if !held.Has(i) && !slices.Contains(n.reading, int32(i)) {
			n.reading = append(n.reading, int32(i))
			n.x.Demand(i, true)
		}
	}
}

// tick looks after what is late or silent.
func (s *Sim) tick(n *node) {
	if n.finished > 0 {
		return
	}
	s.queue.push(event{at: s.now + exchange.TickEvery, kind: tick, node: n.id})
	s.act(n, func(x *exchange.Exchange) {
		for k, c := range n.conns {
			if c.open {
				x.Progress(key(int32(k)), min(s.now, s.nodes[c.peer].conns[c.back].arrival))
			}
		}
		x.Tick()
	})
}

// dequeue takes the piece that is sent next on a connection.
func (s *Sim) dequeue(n *node, slot int32) bool {
	var u exchange.Upload
	ok := false
	s.act(n, func(x *exchange.Exchange) { u, _, ok = x.NextUpload(key(slot)) })
	if ok {
		n.conns[slot].sending, n.conns[slot].left = int32(u.Block.Piece), s.quanta
	}
	return ok
}

// endpoint is how n shows itself to who is connected to it.
func (n *node) endpoint() exchange.Endpoint {
	return exchange.Endpoint{ID: wire.PeerIDOf(n.key), Addr: n.addr, Machine: fmt.Sprint(n.id), Fast: true, Extended: true, Nonce: n.key[:]}
}
