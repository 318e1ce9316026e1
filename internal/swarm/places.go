package swarm

import (
	"cmp"
	"errors"
	"net/netip"
	"time"

	"viver.lan/internal/schedule"
)

// Places are what peers take up here: memory, goroutines, a share of the lock.
// There are maxPeers of them, some kept for those whom this node calls itself,
// and few for one address. When there is no place left, the least useful peer
// goes, by what it did: a newcomer from an address that has none is let in
// before one more of an address that has many.
const (
	// maxIncoming is how many peers may have called us.
	maxIncoming = maxPeers * 3 / 4
	// maxPerHost is how many peers one address may have here.
	maxPerHost = 16
	// useful is how long a peer that gave, or was given, something counts as
	// useful for it; young how long a newcomer has to show that it is.
	useful = 30 * time.Second
	young  = 5 * time.Second
	// distrust is how long those who come from an address are asked for one
	// piece first, because one that came from there gave nothing, or wrong bytes.
	distrust = 2 * time.Minute
)

// worth orders peers by what they are worth to this node.
type worth int

const (
	idle   worth = iota
	new_         // it just came
	taking       // it is being sent pieces
	giving       // it sends pieces
	origin       // named as the first node by whoever started this one
)

// worthOf tells what peer p is worth now.
func (s *Swarm) worthOf(p *peer, now time.Duration) worth {
	lately := func(at time.Duration) bool { return at > 0 && now-at < useful }
	switch {
	case p.named():
		return origin
	case s.table.Trusted(p.key) && s.table.Given(p.key) > 0 && lately(time.Duration(p.lastData.Load())):
		return giving
	case lately(p.lastSent):
		return taking
	case now-p.since < young:
		return new_
	}
	return idle
}

var errNoPlace = errors.New("there is no place for another peer")

// makePlace finds a place for p, and closes another connection for it if need
// be.
func (s *Swarm) makePlace(p *peer, c *contact, now time.Duration) error {
	host := p.addr.Addr()
	hosts := make(map[netip.Addr]int)
	all, incoming := 0, 0
	for _, q := range s.peers {
		if !q.closing {
			hosts[q.addr.Addr()]++
			all++
			if !q.outgoing {
				incoming++
			}
		}
	}
	var leaves *peer
	switch {
	case hosts[host] >= maxPerHost:
		leaves = s.least(hosts, func(q *peer) bool { return q.addr.Addr() == host }, now)
	case all >= maxPeers:
		leaves = s.least(hosts, func(*peer) bool { return true }, now)
	case c == nil && incoming >= maxIncoming:
		leaves = s.least(hosts, func(q *peer) bool { return !q.outgoing }, now)
	default:
		return nil
	}
	if leaves == nil {
		return errNoPlace
	}
	theirs := leaves.addr.Addr()
	if theirs != host && hosts[theirs] <= hosts[host]+1 && s.worthOf(leaves, now) > idle && (c == nil || !c.origin) {
		return errNoPlace
	}
	leaves.close(errors.New("its place is needed for another"))
	return nil
}

// least returns the least useful of the peers that are in and give nothing: one
// of the address that has the most, and among those of it the one that was of
// use the longest time ago.
func (s *Swarm) least(hosts map[netip.Addr]int, in func(*peer) bool, now time.Duration) *peer {
	var least *peer
	for _, q := range s.peers {
		switch {
		case q.closing || !in(q) || s.worthOf(q, now) >= giving:
		case least == nil || cmp.Or(
			cmp.Compare(hosts[least.addr.Addr()], hosts[q.addr.Addr()]),
			cmp.Compare(s.worthOf(q, now), s.worthOf(least, now)),
			cmp.Compare(q.kind, least.kind),
			cmp.Compare(q.used(), least.used()),
		) < 0:
			least = q
		}
	}
	return least
}

// used is when pieces last went to or came from p, or when it came.
func (p *peer) used() time.Duration {
	return max(p.since, p.lastSent, time.Duration(p.lastData.Load()))
}

// blame remembers that who came from p's address gave nothing worth having.
func (s *Swarm) blame(host netip.Addr, now time.Duration) {
	if len(s.distrusted) >= maxHosts {
		for h, until := range s.distrusted {
			if now > until || len(s.distrusted) >= maxHosts {
				delete(s.distrusted, h)
			}
		}
	}
	s.distrusted[host] = now + distrust
}

// gaveNothing reports whether p was found out as one that gives nothing.
func (s *Swarm) gaveNothing(p *peer) bool {
	return s.table.Given(p.key) == 0 && !s.table.Trusted(p.key) && p.kind != schedule.Origin
}
