package exchange

import (
	"time"

	"viver.lan/internal/placement"
	"viver.lan/internal/schedule"
)

// promptly bounds the work, in nodes times pieces, that is done while the peers
// wait; more is done once a second.
const promptly = 1 << 19

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

// setOwned lets ownership follow a change among the peers: at once, or soon if
// that was done a moment ago.
func (x *Exchange) setOwned() {
	x.ownedLate = true
	if x.muchOwned() {
		return
	}
	if wait := x.ownedNext - x.now; wait > 0 {
		x.wakeWithin(wait)
		return
	}
	x.findOwned()
}

// muchOwned reports whether ownership is too much to be found while peers wait.
func (x *Exchange) muchOwned() bool { return len(x.peers)*x.cfg.Image.Pieces > promptly }

// findOwned computes which pieces this node takes from the origin: those that
// it is the first to keep among the nodes it is connected to.
func (x *Exchange) findOwned() {
	x.ownedLate = false
	x.ownedNext = x.now + ownedEvery
	if x.cfg.Origin {
		x.table.SetOwned(func(int) bool { return false })
		return
	}
	im := x.cfg.Image
	whole := im.Whole(x.cfg.Budget)
	nodes := []placement.Node{{ID: string(x.id), Weight: max(x.cfg.Budget, 1)}}
	for _, p := range x.peers {
		if p.kind == schedule.Node && !p.closing && x.table.Trusted(p.key) && !x.disproved(p) {
			nodes = append(nodes, placement.Node{ID: p.nodeID(), Weight: max(p.hello.Budget, 1)})
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
