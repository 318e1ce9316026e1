package boothost

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/ipv4"

	"viver.lan/internal/dhcp"
)

// maxPacket is more than any DHCP request on an Ethernet.
const maxPacket = 2048

// dhcpServer carries requests on one port to package dhcp and the answers
// back.
type dhcpServer struct {
	host  *Host
	port  int
	title string
	conn  *net.UDPConn
}

func (s *dhcpServer) name() string { return s.title }

func (s *dhcpServer) open(ctx context.Context) (err error) {
	s.conn, err = listenUDP(ctx, s.host.cfg.Interface.Name, s.port)
	return err
}

func (s *dhcpServer) serve(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { s.conn.Close() })()
	defer s.conn.Close()
	out := ipv4.NewPacketConn(s.conn)
	buf := make([]byte, maxPacket)
	for ctx.Err() == nil {
		n, from, err := s.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			pause(ctx, s.host.cfg.Log, s.title, err)
			continue
		}
		req, err := dhcpv4.FromBytes(buf[:n])
		if err != nil {
			s.host.cfg.Log.Debug("not a DHCP packet", "from", from, "error", err)
			continue
		}
		if err := s.answer(out, req, from); err != nil {
			s.host.cfg.Log.Warn("DHCP answer not sent", "mac", req.ClientHWAddr, "error", err)
		}
	}
	return nil
}

// answer sends what package dhcp decides. The source address is given with
// each packet, because the NIC may have several.
func (s *dhcpServer) answer(out *ipv4.PacketConn, req *dhcpv4.DHCPv4, from netip.AddrPort) error {
	h := s.host
	d := dhcp.Decide(req, dhcp.Arrival{Port: s.port, From: from}, &h.dhcp, h.cfg.Table)
	level := slog.LevelDebug
	if d.Client.Kind != "" && d.Client.Kind != dhcp.Stranger && h.machines.asked(req, d) {
		level = slog.LevelInfo // once per machine and kind, a flood fills no log
	}
	h.cfg.Log.Log(context.Background(), level, "dhcp", "port", s.port, "mac", d.Client.MAC, "client", d.Client.Kind,
		"platform", d.Client.Platform, "asked", req.MessageType(), "decision", d.Reason)
	h.metrics.request(d)
	if d.Reply == nil {
		return nil
	}
	cm := &ipv4.ControlMessage{Src: h.cfg.Address.Addr().AsSlice(), IfIndex: h.cfg.Interface.Index}
	if _, err := out.WriteTo(d.Reply.ToBytes(), cm, net.UDPAddrFromAddrPort(d.To)); err != nil {
		return fmt.Errorf("to %s: %w", d.To, err)
	}
	return nil
}

// pause follows a failed read: either the service ends, or the link has a
// fault, which must not become a busy loop.
func pause(ctx context.Context, log *slog.Logger, title string, err error) {
	if ctx.Err() != nil {
		return
	}
	log.Warn("read failed, trying again in a second", "service", title, "error", err)
	select {
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
}
