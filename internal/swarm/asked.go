package swarm

import "viver.lan/internal/swarm/wire"

// asked are the requests on a connection that have no answer yet. The exchange knows
// best what a peer owes; the reader of a connection has to know when a block begins,
// before it gives it a buffer, and cannot wait for the owner each time. What the exchange
// takes for asked is always here, and little else: what the reader has seen the answer
// to, the owner will hear of.
type asked map[wire.Block]struct{}

// sent notes a message to the peer.
func (a asked) sent(m wire.Message) {
	switch {
	case m.KeepAlive:
	case m.Type == wire.Request:
		a[m.Block] = struct{}{}
	case m.Type == wire.Cancel:
		delete(a, m.Block)
	}
}

// answered notes a message of the peer, and reports whether it answers a request. A
// choke does that to all of them where the fast extension is not spoken (BEP 3, BEP 6).
func (a asked) answered(m wire.Message, fast bool) (was bool) {
	switch {
	case m.KeepAlive:
	case m.Type == wire.Piece, m.Type == wire.Reject:
		_, was = a[m.Block]
		delete(a, m.Block)
	case m.Type == wire.Choke && !fast:
		clear(a)
	}
	return was
}

// answered notes a message of the peer, and reports whether it answers a request.
func (c *conn) answered(m wire.Message) bool {
	if m.Type != wire.Piece && m.Type != wire.Reject && m.Type != wire.Choke {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked.answered(m, c.fast)
}
