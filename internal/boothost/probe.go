package boothost

import (
	"context"
	"net/netip"
	"sync"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/net/ipv4"

	"viver.lan/internal/contain"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
)

// Bounds on address probes (RFC 5227), see dhcp.AddressToProbe.
const (
	maxProbes        = 64 // requests at once; more are dropped, and clients ask again
	probesPerRequest = 4  // that many candidates may be in use
)

// probeAndAnswer answers a request. An address that is given to a machine for the
// first time is probed before: a machine that got it from a boot host that is gone,
// or that was configured by hand, still has it. The goroutines belong to group.
func (s *dhcpServer) probeAndAnswer(ctx context.Context, out *ipv4.PacketConn, req *dhcpv4.DHCPv4, from netip.AddrPort, group *sync.WaitGroup) {
	h := s.host
	next := func() (ether.MAC, netip.Addr, bool) {
		if h.cfg.ProbeAddress == nil {
			return ether.MAC{}, netip.Addr{}, false
		}
		return dhcp.AddressToProbe(req, dhcp.Arrival{Port: s.port, From: from}, h.dhcpConfig(), h.cfg.Table)
	}
	mac, addr, needed := next()
	if !needed {
		s.answer(out, req, from)
		return
	}
	select {
	case s.probes <- struct{}{}:
	default:
		h.cfg.Log.Debug("dhcp: too many new machines at once", "mac", mac)
		return
	}
	group.Go(func() {
		defer func() { <-s.probes }()
		defer contain.Recover(h.cfg.Log, "a DHCP packet", nil)
		for n := 0; needed && n < probesPerRequest; n++ {
			by, used, err := h.cfg.ProbeAddress(ctx, addr)
			if err != nil {
				if ctx.Err() == nil {
					h.cfg.Log.Warn("dhcp: address probe failed", "address", addr, "error", err)
				}
				return
			}
			if used && by != mac {
				h.cfg.Log.Warn("dhcp: an address is in use, the machine gets another", "address", addr, "by", by, "to", mac)
			}
			h.cfg.Table.Probed(mac, addr, by)
			mac, addr, needed = next()
		}
		s.answer(out, req, from)
	})
}
