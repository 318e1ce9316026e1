package exchange

import (
	"cmp"
	"errors"
	"net/netip"
	"time"
)

// Places are what peers take up here: memory, goroutines, a share of the owner's
// time. There are maxPeers of them, some kept for those whom this node calls
// itself, and few for one address. When there is no place left, the least useful
// peer goes, by what it did: a newcomer from an address that has none is let in
// before one more of an address that has many.
const (
	// maxIncoming is how many peers may have called us.
	maxIncoming = maxPeers * 3 / 4
	// MaxPerHost is how many peers one address may have at a node.
	MaxPerHost = 16
	// useful is how long a peer that gave, or was given, something counts as
	// useful for it; young how long a newcomer has to show that it is.
	useful = 30 * time.Second
	young  = 5 * time.Second
)

// worth orders peers by what they are worth to this node.
type worth int

const (
	idle   worth = iota
	fresh        // it just came
	taking       // it is being sent pieces
	giving       // it sends pieces
	origin       // named as the first node by whoever started this one
)

// worthOf tells what peer p is worth now.
func (x *Exchange) worthOf(p *peer) worth {
	lately := func(at time.Duration) bool { return at > 0 && x.now-at < useful }
	switch {
	case p.named():
		return origin
	case x.table.Trusted(p.key) && x.table.Given(p.key) > 0 && lately(p.lastData):
		return giving
	case lately(p.lastSent):
		return taking
	case x.now-p.since < young:
		return fresh
	}
	return idle
}

// makePlace finds a place for p, and closes another connection for it if need
// be.
func (x *Exchange) makePlace(p *peer) error {
	for _, limit := range []struct {
		most int
		of   func(q *peer) bool
	}{
		{MaxPerHost, func(q *peer) bool { return q.Addr.Addr() == p.Addr.Addr() }},
		{maxPeers, func(*peer) bool { return true }},
		{maxIncoming, func(q *peer) bool { return !p.outgoing() && !q.outgoing() }},
	} {
		n := 0
		for _, q := range x.peers {
			if !q.closing && limit.of(q) {
				n++
			}
		}
		if n >= limit.most {
			return x.replace(limit.of, p)
		}
	}
	return nil
}

// replace closes the connection to one of the peers that are in, to make place for
// p.
func (x *Exchange) replace(in func(q *peer) bool, p *peer) error {
	hosts := make(map[netip.Addr]int)
	for _, q := range x.peers {
		if !q.closing {
			hosts[q.Addr.Addr()]++
		}
	}
	leaves := x.least(hosts, in)
	if leaves == nil {
		return errNoPlace
	}
	host, theirs := p.Addr.Addr(), leaves.Addr.Addr()
	if theirs != host && hosts[theirs] <= hosts[host]+1 && x.worthOf(leaves) > idle && (p.contact == nil || !p.contact.origin) {
		return errNoPlace
	}
	leaves.close(errors.New("its place is needed for another"))
	return nil
}

// least returns the least useful of the peers that are in and give nothing: one
// of the address that has the most, and among those of it the one that was of
// use the longest time ago.
func (x *Exchange) least(hosts map[netip.Addr]int, in func(*peer) bool) *peer {
	var least *peer
	for _, q := range x.peers {
		switch {
		case q.closing || !in(q) || x.worthOf(q) >= giving:
		case least == nil || cmp.Or(
			cmp.Compare(hosts[least.Addr.Addr()], hosts[q.Addr.Addr()]),
			cmp.Compare(x.worthOf(q), x.worthOf(least)),
			cmp.Compare(q.kind, least.kind),
			cmp.Compare(q.used(), least.used()),
		) < 0:
			least = q
		}
	}
	return least
}

// used is when pieces last went to or came from p, or when it came.
func (p *peer) used() time.Duration { return max(p.since, p.lastSent, p.lastData) }
