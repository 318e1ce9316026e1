package exchange

import (
	"fmt"
	"net/netip"
	"time"

	"viver.lan/internal/identity"
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// How the two ends of a connection get to know each other: what a peer counts as, and
// from when it is asked for pieces, depends on it.

// greet sends what opens a connection: what this node has, and its handshakes.
func (x *Exchange) greet(p *peer) {
	n, held := x.cfg.Image.Pieces, x.table.Held()
	switch {
	case p.Fast && held.Count() == n:
		p.send(wire.Message{Type: wire.HaveAll})
	case p.Fast && held.Count() == 0:
		p.send(wire.Message{Type: wire.HaveNone})
	case held.Count() > 0:
		p.send(wire.Message{Type: wire.Bitfield, Payload: wire.Bits(n, held.Has)})
	}
	if p.Extended {
		p.sendHello()
	}
	p.send(wire.Message{Type: wire.Unchoke})
}

// sendHello introduces this node; BEP 10 allows it more than once.
func (p *peer) sendHello() {
	cfg := &p.x.cfg
	h := wire.Hello{
		Client: "VIVER", Queue: maxQueue - 6, Port: cfg.Listen.Port(),
		Block: cfg.Image.PieceLength, Budget: cfg.Budget, Key: cfg.Key[:], Nonce: p.Nonce,
	}
	h.M.Pex, h.M.DontHave, h.M.Urgent, h.M.Proof = wire.IDPex, wire.IDDontHave, wire.IDUrgent, wire.IDProof
	h.M.Challenge, h.M.Answer = wire.IDChallenge, wire.IDAnswer
	h.M.RecordRequest, h.M.Record = wire.IDRecordRequest, wire.IDRecord
	if cfg.Origin {
		h.Origin = 1
	}
	p.send(wire.Extension(wire.IDHandshake, h.Payload()))
}

// SetBudget tells the peers how many bytes of pieces this node keeps now.
func (x *Exchange) SetBudget(budget int64) {
	if x.cfg.Budget == budget {
		return
	}
	x.cfg.Budget = budget
	for _, p := range x.peers {
		if p.Extended && !p.closing {
			p.sendHello()
		}
	}
	x.owned, x.changed = false, true
}

// Hello takes a peer's extension handshake.
func (x *Exchange) Hello(k schedule.Key, h wire.Hello) {
	p := x.active(k)
	if p == nil {
		return
	}
	again, budget := p.greeted, p.hello.Budget
	p.hello, p.greeted = h, true
	switch {
	case !again:
		if h.Port != 0 && !p.outgoing() {
			if c := x.addHearsay(netip.AddrPortFrom(p.Addr.Addr(), h.Port)); c != nil && !c.connected() {
				c.peer, p.contact = p, c
			}
		}
		if !h.CanProve() {
			x.setReady(p)
		}
	case h.Budget != budget && p.kind == schedule.Node:
		x.owned, x.changed = false, true
	}
}

// Proved says whether a peer has proved that the key is its own, and the name that
// it uses that key's.
func (x *Exchange) Proved(k schedule.Key, key identity.Public, right bool) {
	p := x.active(k)
	switch {
	case p == nil || p.closing:
		return
	case right:
		p.proved, p.node = true, key.ID()
	default:
		x.log("peer did not prove its key; it is behind NAT, or pretends", "addr", p.name, "claims", key.ID())
	}
	x.setReady(p)
}

// setReady lets requests go to p, as what it counts as from now on. A peer that
// proves its key late is readied again.
func (x *Exchange) setReady(p *peer) {
	if left := x.blame.refuses(p.sender(), x.now); left > 0 {
		p.close(fmt.Errorf("refused for another %v: it sent wrong bytes", left.Round(time.Second)))
		return
	}
	if !x.resolveDuplicates(p) {
		return
	}
	if !p.ready {
		p.ready, p.readyAt = true, x.now
	}
	if p.proved && p.hello.Block > 0 {
		// Our own nodes send up to a whole piece at once.
		p.block = int(min(max(p.hello.Block, wire.BlockSize), x.cfg.Image.PieceLength)) / wire.BlockSize * wire.BlockSize
	}
	p.kind = x.rank(p)
	x.table.SetKind(p.key, p.kind)
	x.joinProofs(p)
	if p.kind != schedule.Stranger {
		x.owned = false
	}
	x.changed = true
	x.log("peer", "addr", p.name, "kind", p.kind, "client", p.hello.Client, "id", p.node)
	x.fillAll()
}
