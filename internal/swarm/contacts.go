package swarm

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/swarm/wire"
)

// contact is an address at which a peer may listen.
type contact struct {
	addr    netip.AddrPort
	origin  bool
	fixed   bool // named by the caller: never given up
	self    bool
	dialing bool
	peer    *peer
	fails   int
	next    time.Duration // not dialled before
}

// connected reports whether there is a connection to the contact.
func (c *contact) connected() bool { return c.peer != nil && !c.peer.closing }

// AddPeer names a peer. It is dialled until it answers, again after it was
// lost, and never given up.
func (s *Swarm) AddPeer(addr netip.AddrPort, origin bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.addContact(addr, origin, true); c != nil {
		c.next = s.now()
		wake(s.dial)
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
	limit := maxPeers
	if len(s.contacts) > meshContacts {
		limit = enoughPeers
	}
	var out []*contact
	for _, c := range s.contacts {
		if dialing+len(out) >= 16 || len(s.peers)+len(out) >= maxPeers {
			break
		}
		if len(s.peers)+dialing+len(out) >= limit && !c.origin {
			continue
		}
		if !c.self && !c.dialing && !c.connected() && s.now() >= c.next {
			c.dialing = true
			out = append(out, c)
		}
	}
	return out
}

// dialOne dials a contact and, when that works, serves the connection.
func (s *Swarm) dialOne(ctx context.Context, c *contact) {
	err := s.dialAndServe(ctx, c)
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
	return s.connected(ctx, conn.(*net.TCPConn), c)
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
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Second):
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
	opening := make(chan struct{}, maxPeers) // bounds connections of all kinds
	for {
		conn, err := ln.Accept()
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			time.Sleep(100 * time.Millisecond) // until somebody closes a file
			continue
		}
		if err != nil {
			return err
		}
		remote := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
		select {
		case opening <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		if !s.allowed(remote.Addr()) {
			conn.Close()
			<-opening
			continue
		}
		s.group.Go(func() error {
			defer func() { <-opening }()
			if err := s.connected(ctx, conn.(*net.TCPConn), nil); err != nil {
				s.log.Debug("incoming connection refused", "addr", remote, "err", err)
			}
			return nil
		})
	}
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
		if p.hello.M.Pex == 0 || p.closing || p.hello.Block == 0 && p.pexAt != 0 && s.now()-p.pexAt < time.Minute {
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
