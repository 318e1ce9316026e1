package bootnet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Apply switches the link on, gives it the lease's address and announces that to the
// neighbours. Addresses that the link has already stay.
func Apply(card Card, lease Lease) error {
	if err := LinkUp(card.Index); err != nil {
		return err
	}
	if err := AddAddress(card.Index, lease.Address); err != nil {
		return err
	}
	return Announce(card, lease.Address.Addr())
}

// Device is the link with this index, for package netlink.
func Device(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// IPNet is a prefix, for package netlink.
func IPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// PrefixOf is the prefix that package netlink writes as n; invalid for nil, which
// stands for the default route there.
func PrefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(Addr(n.IP), bits)
}

// AddAddress gives the link an address, which it may have already.
func AddAddress(index int, address netip.Prefix) error {
	if err := netlink.AddrReplace(Device(index), &netlink.Addr{IPNet: IPNet(address)}); err != nil {
		return fmt.Errorf("give link %d the address %s: %w", index, address, err)
	}
	return nil
}

// Addr is the IPv4 address that other packages write as ip; invalid when it is none.
func Addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip.To4())
	return a
}

// SetRoutes gives the machine the lease's routes. The first error does not keep
// the other routes out: the root disk needs none of them.
func SetRoutes(index int, lease Lease) error {
	routes := slices.Clone(lease.Routes)
	if lease.Router.IsValid() {
		routes = append(routes, Route{To: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: lease.Router})
	}
	// A router may be reached by another of the routes only.
	slices.SortStableFunc(routes, func(a, b Route) int { return b.To.Bits() - a.To.Bits() })
	var errs []error
	for _, r := range routes {
		route := &netlink.Route{LinkIndex: index, Dst: IPNet(r.To), Protocol: unix.RTPROT_DHCP, Table: unix.RT_TABLE_MAIN, Scope: netlink.SCOPE_LINK}
		if r.Via.IsValid() {
			route.Gw, route.Scope = r.Via.AsSlice(), netlink.SCOPE_UNIVERSE
			if r.To.Bits() > 0 || !lease.Address.Contains(r.Via) {
				route.SetFlag(netlink.FLAG_ONLINK) // some networks give a router outside the prefix
			}
		}
		if err := netlink.RouteReplace(route); err != nil {
			errs = append(errs, fmt.Errorf("set the route to %s on link %d: %w", r, index, err))
		}
	}
	return errors.Join(errs...)
}
