package netconf

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/packet"
)

// pools are the private ranges (RFC 1918) for a network that had none. All
// machines try them in this order, so that two that see nothing agree. The
// blocks alternate because a company's route may cover the whole of one, and
// the ranges are those that routers and container engines use least.
func pools() []netip.Prefix {
	return []netip.Prefix{
		netip.MustParsePrefix("10.77.0.0/16"),
		netip.MustParsePrefix("172.29.0.0/16"),
		netip.MustParsePrefix("10.177.0.0/16"),
		netip.MustParsePrefix("172.23.0.0/16"),
		netip.MustParsePrefix("10.213.0.0/16"),
		netip.MustParsePrefix("192.168.0.0/16"),
	}
}

// DefaultPool is the address range of a network that had none, where nothing
// else is seen to use it.
func DefaultPool() netip.Prefix { return pools()[0] }

// usedPrefix is an address or a network that is in use, and how we know.
type usedPrefix struct {
	prefix   netip.Prefix
	link     int       // index of the link that showed it
	mac      ether.MAC // of the machine that has the address; zero: not known
	evidence string    // a sentence's subject and verb: "X has"
}

// String is a sentence for people.
func (s usedPrefix) String() string {
	if s.prefix.IsSingleIP() {
		return fmt.Sprintf("%s %s", s.evidence, s.prefix.Addr())
	}
	return fmt.Sprintf("%s %s", s.evidence, s.prefix)
}

// choosePool returns the first range that collides with nothing seen, and for
// each one before it what spoke against that. When all collide it is the first
// one again.
func choosePool(link bootnet.Link, seen []usedPrefix) (pool netip.Prefix, passed []usedPrefix) {
	for _, pool := range pools() {
		against := conflicting(pool, link, seen)
		if len(against) == 0 {
			return pool, passed
		}
		passed = append(passed, against[0])
	}
	return DefaultPool(), passed
}

// conflicting returns what speaks against giving pool to the network behind
// link.
func conflicting(pool netip.Prefix, link bootnet.Link, seen []usedPrefix) []usedPrefix {
	var against []usedPrefix
	for _, s := range seen {
		if s.prefix.Overlaps(pool) && !(s.link == link.Index && s.isCandidate(pool)) {
			against = append(against, s)
		}
	}
	return against
}

// isCandidate reports whether the address is one that VIVER gives this very machine:
// nodes that outlived their boot host are no strangers to the next one.
func (s usedPrefix) isCandidate(pool netip.Prefix) bool {
	if s.mac == (ether.MAC{}) {
		return false
	}
	for n := range maxCandidates {
		if dhcp.Candidate(pool, s.mac, n) == s.prefix.Addr() {
			return true
		}
	}
	return false
}

// offeredPrefixes are the networks that DHCP servers on a link told of.
func offeredPrefixes(link bootnet.Link, offers []bootnet.Offer) []usedPrefix {
	var seen []usedPrefix
	add := func(where netip.Prefix, how string) {
		if where.IsValid() && !slices.ContainsFunc(seen, func(s usedPrefix) bool { return s.prefix == where }) {
			seen = append(seen, usedPrefix{prefix: where, link: link.Index, evidence: how})
		}
	}
	for _, o := range offers {
		add(o.Network, fmt.Sprintf("on %s the %s gives addresses of", link.Name, o))
		add(singleIP(o.Server), fmt.Sprintf("on %s a DHCP server has", link.Name))
		add(singleIP(o.Router), fmt.Sprintf("on %s the router is", link.Name))
	}
	return seen
}

// singleIP returns the range of one address, invalid for an invalid one.
func singleIP(a netip.Addr) netip.Prefix {
	if !a.IsValid() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, a.BitLen())
}

// maxNeighbours bounds what one link can make us remember.
const maxNeighbours = 256

// sniffARP listens until ctx ends and returns the addresses that machines
// on the link use. It asks nobody: a network shows itself, because machines ask
// for their router all the time.
func sniffARP(ctx context.Context, link bootnet.Link, log *slog.Logger) []usedPrefix {
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
	var seen []usedPrefix
	for ip, mac := range found {
		seen = append(seen, usedPrefix{prefix: singleIP(ip), link: link.Index, mac: mac, evidence: fmt.Sprintf("on %s the machine %s has", link.Name, mac)})
	}
	return seen
}

// kernelPrefixes are the addresses that links have and the routes that
// somebody set, the kernel for example by its own ip=.
func kernelPrefixes(links []bootnet.Link) ([]usedPrefix, error) {
	var seen []usedPrefix
	for _, l := range links {
		addrs, err := netlink.AddrList(bootnet.Device(l.Index), netlink.FAMILY_V4)
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", l.Name, err)
		}
		for _, a := range addrs {
			seen = append(seen, usedPrefix{prefix: bootnet.PrefixOf(a.IPNet), link: l.Index, mac: l.MAC, evidence: fmt.Sprintf("%s itself has", l.Name)})
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
			seen = append(seen, usedPrefix{prefix: to, link: r.LinkIndex, evidence: "there is a route to"})
		}
		if router := singleIP(bootnet.Addr(r.Gw)); router.IsValid() {
			seen = append(seen, usedPrefix{prefix: router, link: r.LinkIndex, evidence: "the router of a route is"})
		}
	}
	return seen, nil
}
