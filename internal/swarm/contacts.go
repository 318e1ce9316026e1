package swarm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/contain"
	"viver.lan/internal/schedule"
	"viver.lan/internal/sleep"
	"viver.lan/internal/swarm/wire"
)

// contact is an address at which a peer may listen.
type contact struct {
	addr    netip.AddrPort
	origin  bool
	fixed   bool // named by the caller: never given up
	hearsay bool // another peer said so, and nobody has answered there yet
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

const (
	// lowestDialled is the lowest port that is dialled because a peer said so: no
	// peer may send this node to the services of others.
	lowestDialled = 1024
	// portsPerHost bounds the ports of one address that are known by hearsay.
	portsPerHost = 4
	// hearsayAtOnce addresses known by hearsay may be dialled, and
	// hearsayPerSecond from then on.
	hearsayAtOnce    = 32
	hearsayPerSecond = 8
)

// AddPeer names a peer. It is dialled until it answers, again after it was
// lost, and never given up.
func (s *Swarm) AddPeer(addr netip.AddrPort, origin bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.toldOrigin = s.toldOrigin || origin
	if c := s.addContact(addr, origin, true); c != nil {
		c.next = s.now()
		wake(s.dial)
	}
	if origin {
		s.rankAll()
	}
}

// RemovePeer says that a peer is believed gone. That is hearsay: a connection
// to it that lives goes on, and its address is forgotten only when nobody
// answers there.
func (s *Swarm) RemovePeer(addr netip.AddrPort) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.contacts[addr]; c != nil {
		c.fixed = false
	}
}

// addContact remembers an address. It returns nil when the address is not
// one to be dialled.
func (s *Swarm) addContact(addr netip.AddrPort, origin, fixed bool) *contact {
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	if !addr.IsValid() || addr.Port() == 0 || addr == s.listen || !s.allowed(addr.Addr()) {
		return nil
	}
	c := s.contacts[addr]
	if c == nil {
		if len(s.contacts) >= maxContacts && !fixed {
			return nil
		}
		c = &contact{addr: addr, next: s.now()}
		s.contacts[addr] = c
		wake(s.dial)
	}
	c.origin = c.origin || origin
	c.fixed = c.fixed || fixed
	return c
}

// hear remembers an address that a peer told of, if it is one where a peer may
// be: on our own network, and not one port of many.
func (s *Swarm) hear(addr netip.AddrPort) *contact {
	addr = netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port())
	if c := s.contacts[addr]; c != nil {
		return c
	}
	if addr.Port() < lowestDialled || !slices.ContainsFunc(s.subnets, func(n netip.Prefix) bool { return n.Contains(addr.Addr()) }) {
		return nil
	}
	if !s.roomFor(addr) {
		return nil
	}
	c := s.addContact(addr, false, false)
	if c != nil {
		c.hearsay = true
	}
	return c
}

// roomFor reports whether one more address known by hearsay may be remembered.
// One where nobody answered is forgotten for it if need be.
func (s *Swarm) roomFor(addr netip.AddrPort) bool {
	same := 0
	var ofHost, ofAll *contact // where nobody answered
	for _, c := range s.contacts {
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
	case len(s.contacts) < maxContacts:
		return true
	}
	if drop == nil {
		return false
	}
	delete(s.contacts, drop.addr)
	return true
}

// ownSubnets returns where peers may be that others tell of: the network given,
// or else those that the address we listen at belongs to.
func ownSubnets(network netip.Prefix, listen netip.Addr) []netip.Prefix {
	if network.IsValid() {
		return []netip.Prefix{network.Masked()}
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var out []netip.Prefix
	for _, a := range addrs {
		n, err := netip.ParsePrefix(a.String())
		if err != nil {
			continue
		}
		if n = netip.PrefixFrom(n.Addr().Unmap(), n.Bits()).Masked(); listen.IsUnspecified() || n.Contains(listen.Unmap()) {
			out = append(out, n)
		}
	}
	return out
}

// allowed reports whether an address is on the boot link.
func (s *Swarm) allowed(a netip.Addr) bool {
	if a.IsUnspecified() || a.IsMulticast() {
		return false
	}
	return !s.cfg.Network.IsValid() || s.cfg.Network.Contains(a.Unmap())
}

// backoff is the pause after so many failed attempts: half a second, doubled
// up to 15 s, and spread, because all nodes lose the same peer at once.
func backoff(fails int) time.Duration {
	d := min(500*time.Millisecond<<min(fails, 5), 15*time.Second)
	return d/2 + rand.N(d/2)
}

// dialLoop keeps connections to all contacts.
func (s *Swarm) dialLoop(ctx context.Context) error {
	t := time.NewTicker(250 * time.Millisecond)
	defer t.Stop()
	for {
		for _, c := range s.due() {
			s.group.Go(func() error {
				s.dialOne(ctx, c)
				return nil
			})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.dial:
		case <-t.C:
		}
	}
}

// due returns contacts to be dialled now, at most a few at a time.
func (s *Swarm) due() []*contact {
	s.mu.Lock()
	defer s.mu.Unlock()
	dialing := 0
	for _, c := range s.contacts {
		if c.dialing && !c.connected() {
			dialing++
		}
	}
	peers := 0 // worth counting: whoever calls us must not keep us from calling
	for k, p := range s.peers {
		if p.outgoing || p.kind != schedule.Stranger && s.table.Trusted(k) {
			peers++
		}
	}
	limit := maxPeers
	if len(s.contacts) > meshContacts {
		limit = enoughPeers
	}
	var out []*contact
	for _, c := range s.contacts {
		if dialing+len(out) >= 16 {
			break
		}
		if peers+dialing+len(out) >= limit && !c.origin {
			continue
		}
		if !c.self && !c.dialing && !c.connected() && s.now() >= c.next && (!c.hearsay || s.hearsay.AllowN(clock(s.now()), 1)) {
			c.dialing = true
			out = append(out, c)
		}
	}
	return out
}

// dialOne dials a contact and, when that works, serves the connection.
func (s *Swarm) dialOne(ctx context.Context, c *contact) {
	err := contain.Call(s.log, "a connection to a peer", func() error { return s.dialAndServe(ctx, c) })
	s.mu.Lock()
	defer s.mu.Unlock()
	c.dialing = false
	if err == nil || errors.Is(err, errDuplicate) || errors.Is(err, errSelf) {
		return
	}
	c.fails++
	c.next = s.now() + backoff(c.fails)
	s.log.Debug("peer does not answer", "addr", c.addr, "attempt", c.fails, "err", err)
	if !c.fixed && c.fails >= 8 {
		delete(s.contacts, c.addr)
	}
}

func (s *Swarm) dialAndServe(ctx context.Context, c *contact) error {
	d := net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	if a := s.listen.Addr(); !a.IsUnspecified() {
		d.LocalAddr = &net.TCPAddr{IP: a.AsSlice()}
	}
	conn, err := d.DialContext(ctx, "tcp", c.addr.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	return s.connected(ctx, conn.(*net.TCPConn), c, func() {})
}

// bind listens at this node's address, on no particular device: the address may
// move to a bridge that the card becomes a port of, and connections go on.
func (s *Swarm) bind(ctx context.Context) (net.Listener, error) {
	at := s.cfg.Listen
	if s.listen.IsValid() {
		at = s.listen // the same port again
	}
	lc := net.ListenConfig{KeepAlive: 15 * time.Second}
	ln, err := lc.Listen(ctx, "tcp", at.String())
	if err != nil {
		return nil, fmt.Errorf("listen for peers: %w", err)
	}
	return ln, nil
}

// accept takes incoming connections. A listener that fails, because the
// address was taken away for a moment, is bound again.
func (s *Swarm) accept(ctx context.Context) error {
	ln := s.first
	for {
		if ln != nil {
			err := s.acceptFrom(ctx, ln)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s.log.Warn("listening for peers again", "err", err)
		}
		if sleep.For(ctx, time.Second) != nil {
			return ctx.Err()
		}
		var err error
		if ln, err = s.bind(ctx); err != nil {
			s.log.Warn("cannot listen", "err", err)
			ln = nil
		}
	}
}

func (s *Swarm) acceptFrom(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	defer ln.Close()
	for {
		conn, err := ln.Accept()
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			time.Sleep(100 * time.Millisecond) // until somebody closes a file
			continue
		}
		if err != nil {
			return err
		}
		s.meet(ctx, conn.(*net.TCPConn))
	}
}

// meet takes an incoming connection over, if its address is one of those that
// peers may have and does not connect too often.
func (s *Swarm) meet(ctx context.Context, conn *net.TCPConn) {
	remote := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	host := remote.Addr().Unmap()
	if !s.allowed(host) {
		conn.Close()
		return
	}
	o, ok := s.lobby.enter(conn, host, s.now())
	if !ok {
		conn.Close()
		return
	}
	s.group.Go(func() error {
		defer s.lobby.leave(o)
		defer conn.Close()
		err := contain.Call(s.log, "a peer's connection", func() error { return s.connected(ctx, conn, nil, func() { s.lobby.leave(o) }) })
		if err != nil {
			s.log.Debug("incoming connection refused", "addr", remote, "err", err)
		}
		return nil
	})
}

// tune sets socket options; failing to do so costs speed only.
func tune(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		// Little unsent data in the kernel: what is urgent can overtake.
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 128<<10)
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 20_000)
	})
}

// sendPex tells peers of the addresses that others listen at (BEP 11). It
// runs with s.mu held.
func (s *Swarm) sendPex() {
	now := map[netip.AddrPort]bool{}
	for a, c := range s.contacts {
		if c.connected() && !c.self && len(now) < 100 {
			now[a] = true
		}
	}
	for _, p := range s.peers {
		// Strangers expect a message a minute at most.
		if p.hello.M.Pex == 0 || p.closing || !p.proved && p.pexAt != 0 && s.now()-p.pexAt < time.Minute {
			continue
		}
		p.pexAt = s.now()
		var msg wire.Pex
		for a := range now {
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
			p.say(msg.Append(nil, p.hello.M.Pex))
		}
	}
}
