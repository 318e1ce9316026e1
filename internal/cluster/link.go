package cluster

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"viver.lan/internal/contain"
	"viver.lan/internal/sleep"
)

// link is the pair of sockets that beacons go through: one sends from this
// machine's address, one hears what is sent to the group. Both keep to the one
// interface that has the address.
type link struct {
	out, in net.PacketConn
	index   int // of the interface
}

func openLink(ctx context.Context, self netip.Addr) (*link, error) {
	index, err := interfaceOf(self)
	if err != nil {
		return nil, err
	}
	in, err := listenGroup(index)
	if err != nil {
		return nil, fmt.Errorf("listen for beacons: %w", err)
	}
	out, err := listenSender(ctx, self, index)
	if err != nil {
		_ = in.Close()
		return nil, fmt.Errorf("send beacons: %w", err)
	}
	return &link{out: out, in: in, index: index}, nil
}

func (l *link) Close() {
	_ = l.out.Close() // nothing is buffered
	_ = l.in.Close()
}

// interfaceOf returns the index of the interface that has an address.
func interfaceOf(addr netip.Addr) (int, error) {
	all, err := net.Interfaces()
	if err != nil {
		return 0, fmt.Errorf("look for the interface with %s: %w", addr, err)
	}
	for _, i := range all {
		addrs, err := i.Addrs()
		if err != nil {
			continue // it went away meanwhile
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == addr {
				return i.Index, nil
			}
		}
	}
	return 0, fmt.Errorf("no interface has the address %s", addr)
}

// listenGroup binds to the group's own address, so that nothing else sent to
// the port arrives (package net would bind to all addresses), and hears it on
// one interface only. See ip(7), udp(7).
func listenGroup(index int) (net.PacketConn, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), "beacon")
	defer f.Close() // FilePacketConn has a copy
	group := beaconGroup.Addr().As4()
	for _, err := range []error{
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), // several nodes on one machine
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_ALL, 0),
		unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: group, Ifindex: int32(index)}),
		unix.Bind(fd, &unix.SockaddrInet4{Port: int(beaconGroup.Port()), Addr: group}),
	} {
		if err != nil {
			return nil, fmt.Errorf("group %s on interface %d: %w", beaconGroup, index, err)
		}
	}
	return net.FilePacketConn(f)
}

// listenSender binds to this machine's address; multicast leaves by the given
// interface, lives for one hop and is heard on this machine too.
func listenSender(ctx context.Context, self netip.Addr, index int) (net.PacketConn, error) {
	var lc net.ListenConfig
	conn, err := lc.ListenPacket(ctx, "udp4", netip.AddrPortFrom(self, 0).String())
	if err != nil {
		return nil, err
	}
	raw, err := conn.(*net.UDPConn).SyscallConn()
	if err == nil {
		if cerr := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptIPMreqn(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(index)})
			if err == nil {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, 1)
			}
		}); err == nil {
			err = cerr
		}
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// beacons sends and receives beacons until ctx ends. Sockets that fail, because the
// interface went away for a moment, are opened again.
func (c *Cluster) beacons(ctx context.Context) error {
	if !c.cfg.Bind.Is4() || c.cfg.Bind.IsLoopback() {
		return nil // there is no link
	}
	for ctx.Err() == nil {
		err := c.beaconsOn(ctx)
		if ctx.Err() == nil {
			c.log.Debug("beacons again in a moment", "error", err)
		}
		_ = sleep.For(ctx, 5*time.Second)
	}
	return nil
}

func (c *Cluster) beaconsOn(ctx context.Context) error {
	l, err := openLink(ctx, c.cfg.Bind)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.sendBeacons(ctx, l.out) })
	g.Go(func() error { return c.receiveBeacons(l.in) })
	g.Go(func() error { return l.watchInterface(ctx, c.cfg.Bind) })
	context.AfterFunc(ctx, l.Close) // ends receiveBeacons; Wait ends ctx at the latest
	return g.Wait()
}

// watchInterface returns an error when another interface has the address now: a bridge, for
// example, that the old one has become a port of.
func (l *link) watchInterface(ctx context.Context, self netip.Addr) error {
	for sleep.For(ctx, 5*time.Second) == nil {
		if index, err := interfaceOf(self); err == nil && index != l.index {
			return fmt.Errorf("%s is on another interface now", self)
		}
	}
	return nil
}

// sendBeacons sends the first soon, then less and less often.
func (c *Cluster) sendBeacons(ctx context.Context, out net.PacketConn) error {
	to := net.UDPAddrFromAddrPort(beaconGroup)
	for pause := 250 * time.Millisecond; ; pause *= 2 {
		c.mu.Lock()
		group, left, others := c.group(), c.left, c.othersAlive()
		b := beacon{infohash: group.Infohash, gossip: c.addr, machines: uint16(min(group.Machines, math.MaxUint16)), medium: group.Medium}
		c.mu.Unlock()
		pause = min(pause, beaconPause(others))
		if sleep.For(ctx, sleep.Jitter(pause)) != nil {
			return nil
		}
		if left {
			continue
		}
		if _, err := out.WriteTo(b.marshal(), to); err != nil {
			return fmt.Errorf("send a beacon: %w", err)
		}
	}
}

func (c *Cluster) receiveBeacons(in net.PacketConn) error {
	buf := make([]byte, 512)
	for {
		n, from, err := in.ReadFrom(buf)
		if err != nil {
			return fmt.Errorf("listen for beacons: %w", err)
		}
		contain.Do(c.log, "a beacon", func() { c.receiveBeacon(buf[:n], from) })
	}
}

// receiveBeacon joins who sent a beacon, soon, if it is new.
func (c *Cluster) receiveBeacon(packet []byte, from net.Addr) {
	b, err := parseBeacon(packet)
	if err != nil {
		return // others use the group too
	}
	if c.worthJoining(b, from.(*net.UDPAddr).AddrPort().Addr().Unmap(), time.Now()) != nil {
		return
	}
	c.log.Debug("heard a machine on the link", "addr", b.gossip)
	c.queueJoin(b.gossip)
}
