package netconnect

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

// defaultPool is the address range of a network that had none, where nothing
// else uses it.
func defaultPool() netip.Prefix { return pools()[0] }

// usedPrefix is an address or a network that is in use, with the evidence.
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

// firstFreePool returns the first range that overlaps nothing in use, and for each one
// before it what it overlaps. When all overlap it is the first one again.
func firstFreePool(link bootnet.Card, used []usedPrefix) (pool netip.Prefix, rejected []usedPrefix) {
	for _, pool := range pools() {
		conflicts := conflicting(pool, link, used)
		if len(conflicts) == 0 {
			return pool, rejected
		}
		rejected = append(rejected, conflicts[0])
	}
	return defaultPool(), rejected
}

// conflicting returns what is in use and keeps pool from being the range of the network
// behind link.
func conflicting(pool netip.Prefix, link bootnet.Card, used []usedPrefix) []usedPrefix {
	var conflicts []usedPrefix
	for _, s := range used {
		if s.prefix.Overlaps(pool) && !(s.link == link.Index && s.isCandidate(pool)) {
			conflicts = append(conflicts, s)
		}
	}
	return conflicts
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

// offeredPrefixes are the networks that DHCP servers on a link named.
func offeredPrefixes(link bootnet.Card, offers []bootnet.Offer) []usedPrefix {
	var used []usedPrefix
	add := func(prefix netip.Prefix, evidence string) {
		if prefix.IsValid() && !slices.ContainsFunc(used, func(u usedPrefix) bool { return u.prefix == prefix }) {
			used = append(used, usedPrefix{prefix: prefix, link: link.Index, evidence: evidence})
		}
	}
	for _, o := range offers {
		add(o.Network, fmt.Sprintf("on %s the %s gives addresses of", link.Name, o))
		add(singleIP(o.Server), fmt.Sprintf("on %s a DHCP server has", link.Name))
		add(singleIP(o.Router), fmt.Sprintf("on %s the router is", link.Name))
	}
	return used
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

// sniffARP listens until ctx ends and returns the addresses that machines on the link
// use. It sends nothing: machines ask for their router all the time.
func sniffARP(ctx context.Context, link bootnet.Card, log *slog.Logger) []usedPrefix {
	s, err := packet.Open(link.Index, packet.EtherTypeARP, nil)
	if err != nil {
		log.Warn("cannot listen for ARP", "link", link.Name, "error", err)
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
	var used []usedPrefix
	for ip, mac := range found {
		used = append(used, usedPrefix{prefix: singleIP(ip), link: link.Index, mac: mac, evidence: fmt.Sprintf("on %s the machine %s has", link.Name, mac)})
	}
	return used
}

// kernelPrefixes are the addresses that links have and the routes that
// somebody set, the kernel for example by its own ip=.
func kernelPrefixes(links []bootnet.Card) ([]usedPrefix, error) {
	var used []usedPrefix
	for _, l := range links {
		addrs, err := netlink.AddrList(bootnet.Device(l.Index), netlink.FAMILY_V4)
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", l.Name, err)
		}
		for _, a := range addrs {
			used = append(used, usedPrefix{prefix: bootnet.PrefixOf(a.IPNet), link: l.Index, mac: l.MAC, evidence: fmt.Sprintf("%s itself has", l.Name)})
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
			used = append(used, usedPrefix{prefix: to, link: r.LinkIndex, evidence: "there is a route to"})
		}
		if router := singleIP(bootnet.Addr(r.Gw)); router.IsValid() {
			used = append(used, usedPrefix{prefix: router, link: r.LinkIndex, evidence: "the router of a route is"})
		}
	}
	return used, nil
}
