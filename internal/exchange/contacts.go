package exchange

import (
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/time/rate"

	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// contact is an address at which a peer may listen.
type contact struct {
	addr    netip.AddrPort
	origin  bool
	fixed   bool // named by the caller: never given up
	hearsay bool // from another peer, and nobody has answered there yet
	self    bool
	dialing bool
	peer    *peer
	fails   int
	next    time.Duration // not dialled before
}

// connected reports whether there is a connection to the contact. Somebody who
// calls us and says that it is the first node does not keep us from dialling it.
func (c *contact) connected() bool {
	return c.peer != nil && !c.peer.closing && (!c.origin || c.peer.known())
}

// contacts are the addresses that are known.
type contacts struct {
	at      map[netip.AddrPort]*contact
	all     []*contact    // in order of arrival
	hearsay *rate.Limiter // of dialling addresses from other peers
}

func newContacts() contacts {
	return contacts{at: make(map[netip.AddrPort]*contact), hearsay: rate.NewLimiter(hearsayPerSecond, hearsayAtOnce)}
}

func (cs *contacts) add(c *contact) {
	cs.at[c.addr] = c
	cs.all = append(cs.all, c)
}

func (cs *contacts) remove(c *contact) {
	if cs.at[c.addr] == c {
		delete(cs.at, c.addr)
		cs.all = slices.DeleteFunc(cs.all, func(o *contact) bool { return o == c })
	}
}

const (
	// lowestDialled is the lowest port that is dialled on a peer's claim: no
	// peer may send this node to the services of others.
	lowestDialled = 1024
	// portsPerHost bounds the ports of one address that are known by hearsay.
	portsPerHost = 4
	// hearsayAtOnce addresses known by hearsay may be dialled, and
	// hearsayPerSecond from then on.
	hearsayAtOnce    = 32
	hearsayPerSecond = 8
	// maxDialing bounds the dials under way.
	maxDialing = 16
	// giveUp is after how many dials without success an address is forgotten.
	giveUp = 8
)

// AddPeer names a peer. It is dialled until it answers, again after it was
// lost, and never given up.
func (x *Exchange) AddPeer(addr netip.AddrPort, origin bool) {
	x.originNamed = x.originNamed || origin
	if c := x.addContact(addr, origin, true); c != nil {
		c.next = x.now
	}
	if origin {
		x.rankAll()
	}
	if len(x.contacts.all) <= meshContacts { // of many, one by one, would take long; Tick does
		x.dial()
	}
}

// RemovePeer says that a peer is believed gone. That is hearsay: a connection
// to it that lives goes on, and its address is forgotten only when nobody
// answers there.
func (x *Exchange) RemovePeer(addr netip.AddrPort) {
	if c := x.contacts.at[addr]; c != nil {
		c.fixed = false
	}
}

// CallBack has an address dialled after a while, unless who is there comes by
// itself before.
func (x *Exchange) CallBack(addr netip.AddrPort, after time.Duration) {
	if x.contacts.at[unmapped(addr)] != nil {
		return
	}
	if c := x.addContact(addr, false, false); c != nil {
		c.next = x.now + after
	}
}

func unmapped(addr netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
}

// addContact remembers an address. It returns nil when the address is not
// one to be dialled.
func (x *Exchange) addContact(addr netip.AddrPort, origin, fixed bool) *contact {
	addr = unmapped(addr)
	if !addr.IsValid() || addr.Port() == 0 || addr == x.cfg.Listen || !Allowed(x.cfg.Network, addr.Addr()) {
		return nil
	}
	c := x.contacts.at[addr]
	if c == nil {
		if len(x.contacts.all) >= maxContacts && !fixed {
			return nil
		}
		c = &contact{addr: addr, next: x.now}
		x.contacts.add(c)
	}
	c.origin = c.origin || origin
	c.fixed = c.fixed || fixed
	return c
}

// addHearsay remembers an address that came from a peer, if it is one where a peer may
// be: on our own network, and not one port of many.
func (x *Exchange) addHearsay(addr netip.AddrPort) *contact {
	addr = unmapped(addr)
	if c := x.contacts.at[addr]; c != nil {
		return c
	}
	if addr.Port() < lowestDialled || !slices.ContainsFunc(x.cfg.Subnets, func(n netip.Prefix) bool { return n.Contains(addr.Addr()) }) {
		return nil
	}
	if !x.contacts.roomFor(addr) {
		return nil
	}
	c := x.addContact(addr, false, false)
	if c != nil {
		c.hearsay = true
	}
	return c
}

// roomFor reports whether one more address known by hearsay may be remembered.
// One where nobody answered is forgotten for it if need be.
func (cs *contacts) roomFor(addr netip.AddrPort) bool {
	same := 0
	var ofHost, ofAll *contact // where nobody answered
	for _, c := range cs.all {
		here := c.addr.Addr() == addr.Addr()
		if here {
			same++
		}
		if c.hearsay && !c.fixed && c.fails > 0 && !c.dialing && !c.connected() {
			if ofAll = c; here {
				ofHost = c
			}
		}
	}
	drop := ofAll
	switch {
	case same >= portsPerHost:
		drop = ofHost
	case len(cs.all) < maxContacts:
		return true
	}
	if drop == nil {
		return false
	}
	cs.remove(drop)
	return true
}

// Allowed reports whether a peer may have an address: on the given network, when
// that is valid.
func Allowed(network netip.Prefix, a netip.Addr) bool {
	if a.IsUnspecified() || a.IsMulticast() {
		return false
	}
	return !network.IsValid() || network.Contains(a.Unmap())
}

// backoff is the pause after so many failed attempts: half a second, doubled
// up to 15 s, and spread, because all nodes lose the same peer at once.
func (x *Exchange) backoff(fails int) time.Duration {
	d := min(500*time.Millisecond<<min(fails, 5), 15*time.Second)
	return d/2 + time.Duration(x.rng.Int64N(int64(d/2)))
}

// dial has contacts dialled that are due, a few at a time. It begins with any of
// them: nodes must not all call the same ones first.
func (x *Exchange) dial() {
	all := x.contacts.all
	peers := 0 // worth counting: whoever calls us must not keep us from calling
	for _, p := range x.peers {
		if p.outgoing() || p.kind != schedule.Stranger && x.table.Trusted(p.key) {
			peers++
		}
	}
	dialing := 0
	for _, c := range all {
		if c.dialing && !c.connected() {
			dialing++
		}
	}
	limit := maxPeers
	if len(all) > meshContacts {
		limit = enoughPeers
	}
	first := x.rng.IntN(max(len(all), 1))
	for n := range all {
		c := all[(first+n)%len(all)]
		switch {
		case dialing >= maxDialing:
			return
		case peers+dialing >= limit && !c.origin, c.self || c.dialing || c.connected() || x.now < c.next:
		case !c.hearsay || x.contacts.hearsay.AllowN(Clock(x.now), 1):
			c.dialing = true
			dialing++
			x.do(Dial{c.addr})
		}
	}
}

// DialEnded says that what a Dial has led to is over: the call, or the connection
// after it. An error says that nobody answered who is of use.
func (x *Exchange) DialEnded(addr netip.AddrPort, err error) {
	c := x.contacts.at[addr]
	if c == nil {
		return
	}
	c.dialing = false
	if err == nil {
		return
	}
	c.fails++
	c.next = x.now + x.backoff(c.fails)
	x.do(Log{slog.LevelDebug, "peer does not answer", []any{"addr", c.addr, "attempt", c.fails, "error", err}})
	if !c.fixed && c.fails >= giveUp {
		x.contacts.remove(c)
	}
}

// contactLost notes that the connection to a contact has ended.
func (x *Exchange) contactLost(p *peer) {
	c := p.contact
	if c == nil || c.peer != p || x.handOver(c) {
		return
	}
	c.peer = nil
	if c.fails++; x.now-p.since > 10*time.Second {
		c.fails = 0 // it was a good connection
	}
	c.next = x.now + x.backoff(c.fails)
}

// handContact makes the address that p was dialled at that of q, which stays. That
// of the first node goes to nobody who has not proved to be the same.
func (p *peer) handContact(q *peer) {
	if p.contact == nil || p.contact.origin && !q.proved {
		return
	}
	if q.contact == nil {
		q.contact = p.contact
	}
	p.contact.peer = q
}

// handOver gives a contact whose connection has ended to a node that listens
// there, if one has dialled us, and reports whether there is one. The other end
// may have found before us that the two were connected twice.
func (x *Exchange) handOver(c *contact) bool {
	for _, q := range x.peers {
		if q.proved && !q.closing && (q.contact == nil || q.contact == c) && netip.AddrPortFrom(q.Addr.Addr(), q.hello.Port) == c.addr {
			c.peer, q.contact = q, c
			return true
		}
	}
	return false
}

// sendAllPex tells peers of the addresses that others listen at (BEP 11).
func (x *Exchange) sendAllPex() {
	var there []netip.AddrPort
	now := make(map[netip.AddrPort]bool) // the same
	for _, c := range x.contacts.all {
		if c.connected() && !c.self && len(there) < 100 {
			there = append(there, c.addr)
			now[c.addr] = true
		}
	}
	for _, p := range x.peers {
		// Strangers expect a message a minute at most.
		if p.hello.M.Pex == 0 || p.closing || !p.proved && p.pexAt != 0 && x.now-p.pexAt < time.Minute {
			continue
		}
		p.pexAt = x.now
		p.sendPex(there, now)
	}
}

// sendPex tells p what has changed among the addresses since it was told last.
func (p *peer) sendPex(there []netip.AddrPort, now map[netip.AddrPort]bool) {
	if p.pexSent == nil {
		p.pexSent = make(map[netip.AddrPort]bool)
	}
	var msg wire.Pex
	for _, a := range there {
		if !p.pexSent[a] && (p.contact == nil || p.contact.addr != a) {
			msg.Added = append(msg.Added, a)
			p.pexSent[a] = true
		}
	}
	for a := range p.pexSent {
		if !now[a] {
			msg.Dropped = append(msg.Dropped, a)
			delete(p.pexSent, a)
		}
	}
	if len(msg.Added)+len(msg.Dropped) > 0 {
		slices.SortFunc(msg.Dropped, netip.AddrPort.Compare)
		p.sendExtended(p.hello.M.Pex, msg.Payload())
	}
}
