package netconf

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/ether"
	"viver.lan/internal/packet"
)

// maxNeighbours bounds what one link can make us remember.
const maxNeighbours = 256

// overhearARP listens until ctx ends and returns the addresses that machines
// on the link use. It asks nobody: a network shows itself, because machines ask
// for their router all the time.
func overhearARP(ctx context.Context, link bootnet.Link, log *slog.Logger) []sighting {
	s, err := packet.Open(link.Index, packet.EtherTypeARP, nil)
	if err != nil {
		log.Warn("neighbours not listened to", "link", link.Name, "error", err)
		return nil
	}
	defer s.Close()
	found := make(map[netip.Addr]ether.MAC)
	_ = s.ReceiveUntil(ctx, time.Time{}, func(frame []byte) bool { // it ends with ctx, or the link is gone
		p, err := packet.ParseARP(frame)
		if err == nil && !p.SenderIP.IsUnspecified() && p.SenderMAC != link.MAC {
			found[p.SenderIP] = p.SenderMAC
		}
		return len(found) >= maxNeighbours
	})
	var seen []sighting
	for ip, mac := range found {
		seen = append(seen, sighting{where: host(ip), link: link.Index, mac: mac, how: fmt.Sprintf("on %s the machine %s has", link.Name, mac)})
	}
	return seen
}

// kernelSightings are the addresses that links have and the routes that
// somebody set, the kernel for example by its own ip=.
func kernelSightings(links []bootnet.Link) ([]sighting, error) {
	var seen []sighting
	for _, l := range links {
		addrs, err := netlink.AddrList(bootnet.Device(l.Index), netlink.FAMILY_V4)
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", l.Name, err)
		}
		for _, a := range addrs {
			seen = append(seen, sighting{where: bootnet.PrefixOf(a.IPNet), link: l.Index, mac: l.MAC, how: fmt.Sprintf("%s itself has", l.Name)})
		}
	}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Protocol == unix.RTPROT_KERNEL {
			continue // it came with an address
		}
		if to := bootnet.PrefixOf(r.Dst); to.Bits() > 0 {
			seen = append(seen, sighting{where: to, link: r.LinkIndex, how: "there is a route to"})
		}
		if router := host(bootnet.Addr(r.Gw)); router.IsValid() {
			seen = append(seen, sighting{where: router, link: r.LinkIndex, how: "the router of a route is"})
		}
	}
	return seen, nil
}
