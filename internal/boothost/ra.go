package boothost

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv6"

	"viver.lan/internal/contain"
)

// routerAdvertiser answers IPv6 Router Solicitations with "no router here":
// lifetime 0, no prefix (RFC 4861, 4.2). Without an answer iPXE waits for one
// for 13 to 15 seconds. It goes only to the machine that asked: others
// are not disturbed.
type routerAdvertiser struct {
	iface net.Interface
	log   *slog.Logger
	conn  net.PacketConn
	ip6   *ipv6.PacketConn
}

func (r *routerAdvertiser) name() string { return "router-advertisement" }

func (r *routerAdvertiser) open(ctx context.Context) error {
	lc := net.ListenConfig{Control: bindTo(r.iface.Name)}
	conn, err := lc.ListenPacket(ctx, "ip6:ipv6-icmp", "::")
	if err != nil {
		return fmt.Errorf("%w: %w", errOptional, err)
	}
	r.conn, r.ip6 = conn, ipv6.NewPacketConn(conn)
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterSolicitation)
	err = errors.Join(
		r.ip6.SetICMPFilter(&filter),
		r.ip6.JoinGroup(&r.iface, &net.IPAddr{IP: net.IPv6linklocalallrouters}),
		r.ip6.SetControlMessage(ipv6.FlagHopLimit, true),
		r.ip6.SetHopLimit(255), // anything less is dropped, RFC 4861, 6.1.2
		r.ip6.SetMulticastHopLimit(255),
		r.ip6.SetMulticastInterface(&r.iface),
	)
	if err != nil {
		conn.Close()
		return fmt.Errorf("%w: %w", errOptional, err)
	}
	return nil
}

func (r *routerAdvertiser) serve(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { r.conn.Close() })()
	defer r.conn.Close()
	advert, err := advertisement(r.iface.HardwareAddr)
	if err != nil {
		return err
	}
	buf := make([]byte, maxPacket)
	for ctx.Err() == nil {
		n, cm, from, err := r.ip6.ReadFrom(buf)
		if err != nil {
			pause(ctx, r.log, r.name(), err)
			continue
		}
		contain.Do(r.log, "a router solicitation", func() { r.answer(buf[:n], cm, from, advert) })
	}
	return nil
}

func (r *routerAdvertiser) answer(packet []byte, cm *ipv6.ControlMessage, from net.Addr, advert []byte) {
	to, ok := solicitor(packet, cm, from)
	if !ok {
		return
	}
	to.Zone = r.iface.Name
	if _, err := r.ip6.WriteTo(advert, &ipv6.ControlMessage{IfIndex: r.iface.Index}, to); err != nil {
		r.log.Debug("router advertisement not sent", "to", to, "error", err)
	}
}

// solicitor returns whom to answer: the sender of a valid solicitation, or all
// nodes when it has no address yet.
func solicitor(packet []byte, cm *ipv6.ControlMessage, from net.Addr) (*net.IPAddr, bool) {
	addr, ok := from.(*net.IPAddr)
	if !ok || cm == nil || cm.HopLimit != 255 { // came through a router
		return nil, false
	}
	if len(packet) < 8 || packet[0] != byte(ipv6.ICMPTypeRouterSolicitation) || packet[1] != 0 {
		return nil, false
	}
	if addr.IP.IsUnspecified() {
		return &net.IPAddr{IP: net.IPv6linklocalallnodes}, true
	}
	if !addr.IP.IsLinkLocalUnicast() {
		return nil, false
	}
	return &net.IPAddr{IP: addr.IP}, true
}

// advertisement encodes a Router Advertisement of lifetime 0 with our link
// address. The kernel fills in the checksum.
func advertisement(mac net.HardwareAddr) ([]byte, error) {
	body := make([]byte, 12)                  // hop limit, flags, lifetime and timers: all unspecified
	body = append(append(body, 1, 1), mac...) // source link-layer address option
	m := icmp.Message{Type: ipv6.ICMPTypeRouterAdvertisement, Body: &icmp.RawBody{Data: body}}
	return m.Marshal(nil)
}
