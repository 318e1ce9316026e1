package exchange

import (
	"bytes"
	"errors"
	"net/netip"
	"time"

	"viver.lan/internal/placement"
	"viver.lan/internal/schedule"
)

// proofPause is for how long a node that has just met the first one asks it for
// nothing but what somebody waits for, while others prove their keys: among those
// it then shares with, each piece has one owner.
const proofPause = 200 * time.Millisecond

// proving reports whether the first node p is so new that it can wait for others
// that are here.
func (x *Exchange) proving(p *peer) bool {
	if x.now-p.readyAt >= proofPause {
		return false
	}
	for _, q := range x.peers {
		if !q.ready && !q.closing && x.now-q.since < proofPause {
			return true
		}
	}
	return false
}

// rank decides what p counts as, now that it is known whether it proved a key.
func (x *Exchange) rank(p *peer) schedule.Kind {
	first := p.hello.Origin != 0
	named := p.named()
	if at := x.contacts.at[netip.AddrPortFrom(p.Addr.Addr(), p.hello.Port)]; p.proved && at != nil {
		named = named || at.origin // it dialled us
	}
	switch {
	case named, first && p.proved && !x.originNamed:
		return schedule.Origin
	case p.proved && !first && p.hello.Block > 0:
		return schedule.Node
	}
	// One that says it is the first node, and is not where we were told that
	// node is, has copies that must not be counted, and nothing to be asked of
	// it first.
	return schedule.Stranger
}

// rankAll ranks the peers again, since we were told where the first node is.
func (x *Exchange) rankAll() {
	for _, p := range x.peers {
		if kind := x.rank(p); p.ready && !p.closing && kind != p.kind {
			x.setReady(p)
		}
	}
}

// resolveDuplicates leaves one connection to each peer: of two to the same node
// the one that both ends choose, and none to whoever uses the name of a node
// that has proved it. It reports whether p stays.
func (x *Exchange) resolveDuplicates(p *peer) bool {
	for _, q := range x.peers {
		if q == p || q.closing || q.ID != p.ID || !q.ready && !q.proved {
			continue
		}
		switch {
		case p.proved && !q.proved:
			q.close(errors.New("another peer has proved that this name is its own"))
		case q.proved && !p.proved:
			p.close(errors.New("its name belongs to another peer, which has proved it"))
			return false
		case x.keepOld(p, q):
			p.handContact(q)
			if p.Addr.Addr() != q.Addr.Addr() {
				x.warn("two peers have one name, the newer is refused", "at", p.Addr.Addr(), "and", q.Addr.Addr())
			}
			p.close(ErrDuplicate)
			return false
		default:
			q.handContact(p)
			q.close(errors.New("replaced by a newer connection"))
		}
	}
	return true
}

// keepOld decides, the same way at both ends, which of two connections
// between the same nodes stays. A connection that has gone quiet may be the
// rest of a machine that was switched off.
func (x *Exchange) keepOld(p, q *peer) bool {
	if x.now-q.lastHeard > 12*time.Second {
		return false
	}
	if p.outgoing() == q.outgoing() {
		return true
	}
	// The one that the node with the greater name began stays.
	mineIsGreater := bytes.Compare(x.name[:], q.ID[:]) > 0
	return q.outgoing() == mineIsGreater
}

const (
	// ownedEvery is how often ownership is found at the most.
	ownedEvery = 10 * time.Millisecond
	// Ownership may take one in ownedShare parts of the time: peers that come, go
	// and change their minds must not hold up the others.
	ownedShare = 20
	// ringCost and assignCost are what a node and a piece of it cost, about: the
	// exchange has no clock to measure that.
	ringCost, assignCost = 30 * time.Nanosecond, 100 * time.Nanosecond
)

// findOwned computes which pieces this node takes from the origin: those that
// it is the first to keep among the nodes it is connected to.
func (x *Exchange) findOwned() {
	x.owned = true
	if x.cfg.Origin {
		return
	}
	im := x.cfg.Image
	whole := im.Whole(x.cfg.Budget)
	nodes := []placement.Node{{ID: x.id, Weight: max(x.cfg.Budget, 1)}}
	for _, p := range x.peers {
		if p.kind == schedule.Node && !p.closing && x.table.Trusted(p.key) && !x.disproved(p) {
			nodes = append(nodes, placement.Node{ID: p.node, Weight: max(p.hello.Budget, 1)})
			whole = whole && im.Whole(p.hello.Budget)
		}
	}
	took := time.Duration(len(nodes) * im.Pieces)
	if whole { // the common case, and the cheap one
		ring := placement.NewRing(nodes)
		x.table.SetOwned(func(i int) bool { return ring.Owner(i) == 0 })
		took *= ringCost
	} else {
		a := placement.Assign(im, nodes, placement.Copies(len(nodes)))
		self := a.Index(nodes[0].ID)
		x.table.SetOwned(func(i int) bool { return a.Owner(i) == self })
		took *= assignCost
	}
	x.ownedNext = x.now + max(ownedEvery, ownedShare*took)
}
