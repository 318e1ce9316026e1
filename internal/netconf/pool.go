package netconf

import (
	"fmt"
	"net/netip"
	"slices"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
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

// sighting is an address or a network that is in use, and how we know.
type sighting struct {
	where netip.Prefix
	link  int       // index of the link that showed it
	mac   ether.MAC // of the machine that has the address; zero: not known
	how   string    // a sentence's subject and verb: "X has"
}

// String is a sentence for people.
func (s sighting) String() string {
	if s.where.IsSingleIP() {
		return fmt.Sprintf("%s %s", s.how, s.where.Addr())
	}
	return fmt.Sprintf("%s %s", s.how, s.where)
}

// choosePool returns the first range that collides with nothing seen, and for
// each one before it what spoke against that. When all collide it is the first
// one again.
func choosePool(link bootnet.Link, seen []sighting) (pool netip.Prefix, passed []sighting) {
	for _, pool := range pools() {
		against := collisions(pool, link, seen)
		if len(against) == 0 {
			return pool, passed
		}
		passed = append(passed, against[0])
	}
	return DefaultPool(), passed
}

// collisions returns what speaks against giving pool to the network behind
// link.
func collisions(pool netip.Prefix, link bootnet.Link, seen []sighting) []sighting {
	var against []sighting
	for _, s := range seen {
		if s.where.Overlaps(pool) && !(s.link == link.Index && s.ours(pool)) {
			against = append(against, s)
		}
	}
	return against
}

// ours reports whether the address is one that VIVER gives this very machine:
// nodes that outlived their boot host are no strangers to the next one.
func (s sighting) ours(pool netip.Prefix) bool {
	if s.mac == (ether.MAC{}) {
		return false
	}
	for n := range maxCandidates {
		if dhcp.Candidate(pool, s.mac, n) == s.where.Addr() {
			return true
		}
	}
	return false
}

// offerSightings are the networks that DHCP servers on a link told of.
func offerSightings(link bootnet.Link, offers []bootnet.Offer) []sighting {
	var seen []sighting
	add := func(where netip.Prefix, how string) {
		if where.IsValid() && !slices.ContainsFunc(seen, func(s sighting) bool { return s.where == where }) {
			seen = append(seen, sighting{where: where, link: link.Index, how: how})
		}
	}
	for _, o := range offers {
		add(o.Network, fmt.Sprintf("on %s the %s gives addresses of", link.Name, o))
		add(host(o.Server), fmt.Sprintf("on %s a DHCP server has", link.Name))
		add(host(o.Router), fmt.Sprintf("on %s the router is", link.Name))
	}
	return seen
}

// host returns the range of one address, invalid for an invalid one.
func host(a netip.Addr) netip.Prefix {
	if !a.IsValid() {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, a.BitLen())
}
