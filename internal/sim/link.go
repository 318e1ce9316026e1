package sim

import (
	"math"
	"slices"
	"time"

	"viver.lan/internal/exchange"
)

// A machine has a link that sends and receives at the same time. What it
// sends leaves in quanta of a piece, one after the other, taken in turn from
// the connections that have something to send, as TCP connections share a
// link. The switch holds a quantum until the receiver's side of its link is
// free, in order of arrival; sending and receiving overlap, as packets are
// small. A connection pauses while more than backlog waits for it there: its
// window is full, and the link serves the others.

// backlog is how much time's worth of data may wait in the switch for a
// connection that goes on sending.
const backlog = 20 * time.Millisecond

// link is one machine's access to the network.
type link struct {
	up, down float64       // bytes/s of payload
	sending  time.Duration // the uplink is busy until
	taking   time.Duration // the downlink is busy until
	active   []int32       // connections with something to send, in turn
	turn     int
	wakeAt   time.Duration // when the uplink is looked at next; 0: not planned
	sent     int64         // bytes of pieces
}

func span(bytes int64, rate float64) time.Duration {
	return time.Duration(float64(bytes) / rate * float64(time.Second))
}

// activate lets n's uplink serve connection slot.
func (s *Sim) activate(n *node, slot int32) {
	c := &n.conns[slot]
	if c.active {
		return
	}
	c.active = true
	n.link.active = append(n.link.active, slot)
	s.pump(n)
}

// pump sends the next quantum if the uplink is free.
func (s *Sim) pump(n *node) {
	l := &n.link
	if l.sending > s.now {
		s.lookAgain(n, l.sending)
		return
	}
	soonest := time.Duration(math.MaxInt64)
	for tried := 0; tried < len(l.active); {
		if l.turn >= len(l.active) {
			l.turn = 0
		}
		slot := l.active[l.turn]
		c := &n.conns[slot]
		if c.left == 0 && !s.dequeue(n, slot) {
			c.active = false
			l.active = slices.Delete(l.active, l.turn, l.turn+1)
			continue
		}
		l.turn++
		if free := c.arrival - backlog; free > s.now {
			soonest = min(soonest, free)
			tried++
			continue
		}
		s.transmit(n, slot)
		s.lookAgain(n, l.sending)
		return
	}
	if len(l.active) > 0 {
		s.lookAgain(n, soonest)
	}
}

func (s *Sim) lookAgain(n *node, at time.Duration) {
	if n.link.wakeAt > s.now && n.link.wakeAt <= at {
		return
	}
	n.link.wakeAt = at
	s.queue.push(event{at: at, kind: uplinkFree, node: n.id})
}

// transmit puts one quantum of a connection's piece on the wire.
func (s *Sim) transmit(n *node, slot int32) {
	c, size := &n.conns[slot], s.quantum
	c.left--
	if c.left == 0 {
		size = s.cfg.PieceBytes - s.quantum*int64(s.quanta-1)
	}
	r := s.nodes[c.peer]
	if c.left == 0 {
		defer s.sendHaves(n, c) // the connection's writer looks for more to say after a piece
	}
	n.link.sending = s.now + span(size, n.link.up)
	n.link.sent += size
	r.link.taking = max(r.link.taking, s.now+s.cfg.Latency) + span(size, r.link.down)
	c.arrival = max(r.link.taking, n.link.sending+s.cfg.Latency)
	if c.left > 0 {
		return
	}
	s.queue.push(event{at: c.arrival, kind: pieceArrived, node: r.id, a: c.back, b: c.sending})
	s.act(n, func(x *exchange.Exchange) { x.Sent(key(slot), s.whole(c.sending)) })
}
