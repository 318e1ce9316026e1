package sim

import (
	"slices"

	"viver.lan/internal/schedule"
)

// asked takes a request of the peer at slot.
func (s *Sim) asked(n *node, slot int32, r request) {
	if n.liar && n.id%2 == 0 {
		return
	}
	if n.liar || !n.table.Held().Has(int(r.piece)) {
		s.post(n, slot, reject, r.piece)
		return
	}
	c := &n.conns[slot]
	c.queue = append(c.queue, r)
	s.activate(n, slot)
}

// dequeue takes the request that c's peer is sent next. What the origin does
// not admit is rejected on the way.
func (s *Sim) dequeue(n *node, c *conn) bool {
	for len(c.queue) > 0 {
		i := max(0, slices.IndexFunc(c.queue, func(r request) bool { return r.urgent }))
		r := c.queue[i]
		c.queue = slices.Delete(c.queue, i, i+1)
		if n.origin && !s.admit(n, c, r) {
			s.post(n, c.slot(s), reject, r.piece)
			continue
		}
		c.sending, c.left = r.piece, s.quanta
		return true
	}
	return false
}

// admit applies the origin's rule: a piece leaves it once.
func (s *Sim) admit(n *node, c *conn, r request) bool {
	slot := c.slot(s)
	others := 0
	for _, k := range n.link.active {
		if q := &n.conns[k]; k != slot && len(q.queue)+q.left > 0 {
			others++
		}
	}
	gone := func(k schedule.Key) bool { return !n.conns[k].open }
	return s.gifts.Admit(schedule.Key(slot), schedule.Node, int(r.piece), r.urgent, others, gone, s.now)
}

// slot returns the connection's own slot.
func (c *conn) slot(s *Sim) int32 { return s.nodes[c.peer].conns[c.back].back }
