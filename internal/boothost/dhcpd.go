package boothost

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/ipv4"

	"viver.lan/internal/contain"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/sleep"
)

// maxPacket is more than any DHCP request on an Ethernet.
const maxPacket = 2048

// dhcpServer carries requests on one port to package dhcp and the answers
// back.
type dhcpServer struct {
	host    *Host
	port    int
	title   string
	conn    *net.UDPConn
	delayed chan delayedRequest
	probes  chan struct{} // a token for each request whose address is being probed
}

func (s *dhcpServer) name() string { return s.title }

func (s *dhcpServer) open(ctx context.Context) (err error) {
	s.delayed = make(chan delayedRequest, maxDelayed)
	s.probes = make(chan struct{}, maxProbes)
	s.conn, err = listenUDP(ctx, s.host.cfg.Interface.Name, netip.IPv4Unspecified(), uint16(s.port))
	return err
}

func (s *dhcpServer) serve(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { s.conn.Close() })()
	defer s.conn.Close()
	out := ipv4.NewPacketConn(s.conn)
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { s.answerDelayed(ctx, out, &group) })
	buf := make([]byte, maxPacket)
	for ctx.Err() == nil {
		n, from, err := s.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			pause(ctx, s.host.cfg.Log, s.title, err)
			continue
		}
		contain.Do(s.host.cfg.Log, "a DHCP packet", func() { s.handle(ctx, out, buf[:n], from, &group) })
	}
	return nil
}

// handle answers a packet, now or after the delay of our rank.
func (s *dhcpServer) handle(ctx context.Context, out *ipv4.PacketConn, packet []byte, from netip.AddrPort, group *sync.WaitGroup) {
	req, err := dhcp.Decode(packet)
	if err != nil {
		s.host.cfg.Log.Debug("not a DHCP packet", "from", from, "error", err)
		return
	}
	switch rank := s.host.rank(); {
	case rank == 0:
		s.probeAndAnswer(ctx, out, req, from, group)
	case rank < Hosts:
		s.delay(rank, req, from)
	}
}

// answer sends what package dhcp decides. The source address is given with
// each packet, because the NIC may have several.
func (s *dhcpServer) answer(out *ipv4.PacketConn, req *dhcpv4.DHCPv4, from netip.AddrPort) {
	h := s.host
	d := dhcp.Decide(req, dhcp.Arrival{Port: s.port, From: from}, h.dhcpConfig(), h.cfg.Table)
	if d.Relay.IsValid() && h.relays.isNew(d.Relay) {
		h.cfg.Log.Warn("dhcp: machines behind a relay get no answer, because nodes have to be on the boot host's own link; give their network a boot host of its own", "relay", d.Relay, "first", d.Client.MAC)
	}
	level := slog.LevelDebug
	if d.Client.Kind != "" && d.Client.Kind != dhcp.OtherClient && !dhcp.Marked(req) && h.machines.noteRequest(req, d) {
		level = slog.LevelInfo // once per machine and kind, so that a flood does not fill the log
	}
	h.cfg.Log.Log(context.Background(), level, "dhcp", "port", s.port, "mac", d.Client.MAC, "client", d.Client.Kind,
		"platform", d.Client.Platform, "request", req.MessageType(), "decision", d.Reason)
	h.counters.request(d)
	if d.Reply == nil {
		return
	}
	cm := &ipv4.ControlMessage{Src: h.cfg.Address.Addr().AsSlice(), IfIndex: h.cfg.Interface.Index}
	if _, err := out.WriteTo(d.Reply.ToBytes(), cm, net.UDPAddrFromAddrPort(d.To)); err != nil {
		h.cfg.Log.Warn("DHCP answer not sent", "mac", d.Client.MAC, "to", d.To, "error", err)
	}
	if h.cfg.Enquire != nil && d.Client.Kind != dhcp.Node && d.Reply.MessageType() == dhcpv4.MessageTypeOffer && !d.Reply.YourIPAddr.IsUnspecified() {
		h.cfg.Enquire(req)
	}
}

// maxRelays bounds how many relays the log names.
const maxRelays = 64

// relays are those that the log has named.
type relays struct {
	mu    sync.Mutex
	known map[netip.Addr]bool
}

// isNew reports whether a relay has not been logged yet, and notes it.
func (r *relays) isNew(relay netip.Addr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known[relay] || len(r.known) >= maxRelays {
		return false
	}
	if r.known == nil {
		r.known = make(map[netip.Addr]bool)
	}
	r.known[relay] = true
	return true
}

// rank is this host's rank among the boot hosts at this moment.
func (h *Host) rank() int {
	if h.cfg.Rank == nil {
		return 0
	}
	return h.cfg.Rank()
}

// pause follows a failed read: either the service ends, or the link has a fault,
// which must not cause a busy loop.
func pause(ctx context.Context, log *slog.Logger, title string, err error) {
	if ctx.Err() != nil {
		return
	}
	log.Warn("read failed, trying again in a second", "service", title, "error", err)
	_ = sleep.For(ctx, time.Second) // the caller checks ctx
}
