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

// Bounds on looks at the link before an address is given to a machine.
const (
	maxLooks = 64 // at once; beyond, requests are dropped and asked again
	looks    = 4  // for one request: that many addresses may be in use
)

// answerSurely answers a request, after a look at the link when an address is
// given to a machine for the first time: whoever got it from a host that is
// gone, or set it by hand, still has it. The looks belong to aside.
func (s *dhcpServer) answerSurely(ctx context.Context, out *ipv4.PacketConn, req *dhcpv4.DHCPv4, from netip.AddrPort, aside *sync.WaitGroup) {
	h := s.host
	look := func() (ether.MAC, netip.Addr, bool) {
		if h.cfg.InUse == nil {
			return ether.MAC{}, netip.Addr{}, false
		}
		return dhcp.AddressToProbe(req, dhcp.Arrival{Port: s.port, From: from}, h.decideBy(), h.cfg.Table)
	}
	mac, addr, unsure := look()
	if !unsure {
		s.answer(out, req, from)
		return
	}
	select {
	case s.looks <- struct{}{}:
	default:
		h.cfg.Log.Debug("dhcp: too many new machines at once", "mac", mac)
		return
	}
	aside.Go(func() {
		defer func() { <-s.looks }()
		defer contain.Recover(h.cfg.Log, "a DHCP packet", nil)
		for n := 0; unsure && n < looks; n++ {
			by, used, err := h.cfg.InUse(ctx, addr)
			if err != nil {
				if ctx.Err() == nil {
					h.cfg.Log.Warn("dhcp: the link was not asked who has an address", "address", addr, "error", err)
				}
				return
			}
			if used && by != mac {
				h.cfg.Log.Warn("dhcp: an address is in use, another is given", "address", addr, "by", by, "to", mac)
			}
			h.cfg.Table.Probed(mac, addr, by)
			mac, addr, unsure = look()
		}
		s.answer(out, req, from)
	})
}
