package swarm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/contain"
	"viver.lan/internal/exchange"
	"viver.lan/internal/sleep"
)

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

// dial dials an address and, when that works, serves the connection.
func (s *Swarm) dial(addr netip.AddrPort) {
	err := contain.Call(s.log, "a connection to a peer", func() error { return s.dialAndServe(s.ctx, addr) })
	if errors.Is(err, exchange.ErrDuplicate) || errors.Is(err, exchange.ErrSelf) {
		err = nil
	}
	s.report("the end of a connection", func(x *exchange.Exchange) { x.DialEnded(addr, err) })
}

func (s *Swarm) dialAndServe(ctx context.Context, addr netip.AddrPort) error {
	d := net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	if a := s.listen.Addr(); !a.IsUnspecified() {
		d.LocalAddr = &net.TCPAddr{IP: a.AsSlice()}
	}
	conn, err := d.DialContext(ctx, "tcp", addr.String())
	if err != nil {
		return err
	}
	return s.connected(ctx, conn.(*net.TCPConn), addr, func() {})
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
			s.log.Warn("listening for peers again", "error", err)
		}
		if sleep.For(ctx, time.Second) != nil {
			return ctx.Err()
		}
		var err error
		if ln, err = s.bind(ctx); err != nil {
			s.log.Warn("cannot listen", "error", err)
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
	if !exchange.Allowed(s.cfg.Network, host) {
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
		err := contain.Call(s.log, "a peer's connection", func() error { return s.connected(ctx, conn, netip.AddrPort{}, func() { s.lobby.leave(o) }) })
		if err != nil {
			s.log.Debug("incoming connection refused", "addr", remote, "error", err)
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
