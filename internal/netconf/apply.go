package netconf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Apply gives the link the lease's address and tells the neighbours. Addresses that the link has already stay.
func Apply(link Link, lease Lease) error {
	if err := LinkUp(link.Index); err != nil {
		return err
	}
	if err := addAddress(link.Index, lease.Address); err != nil {
		return err
	}
	return Announce(link, lease.Address.Addr())
}

func device(index int) netlink.Link {
	return &netlink.Device{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr4(n.IP), bits)
}

func addAddress(index int, address netip.Prefix) error {
	if err := netlink.AddrReplace(device(index), &netlink.Addr{IPNet: ipNet(address)}); err != nil {
		return fmt.Errorf("give link %d the address %s: %w", index, address, err)
	}
	return nil
}

func setDefaultRoute(index int, lease Lease) error {
	if !lease.Router.IsValid() {
		return nil
	}
	route := &netlink.Route{
		LinkIndex: index,
		Dst:       ipNet(netip.PrefixFrom(netip.IPv4Unspecified(), 0)),
		Gw:        lease.Router.AsSlice(),
		Protocol:  unix.RTPROT_DHCP,
		Table:     unix.RT_TABLE_MAIN,
	}
	if !lease.Address.Contains(lease.Router) {
		route.SetFlag(netlink.FLAG_ONLINK) // some networks give a router outside the prefix
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("set the default route by %s on link %d: %w", lease.Router, index, err)
	}
	return nil
}

func addr4(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip.To4())
	return a
}

// setRoutes gives the machine the lease's routes. The first error does not keep
// the other routes out: the root disk needs none of them.
func setRoutes(index int, lease Lease) error {
	var errs []error
	// A router may be reached by another of the routes only.
	routes := slices.Clone(lease.Routes)
	slices.SortStableFunc(routes, func(a, b Route) int { return b.To.Bits() - a.To.Bits() })
	for _, r := range routes {
		route := &netlink.Route{LinkIndex: index, Dst: ipNet(r.To), Protocol: unix.RTPROT_DHCP, Table: unix.RT_TABLE_MAIN, Scope: netlink.SCOPE_LINK}
		if r.Via.IsValid() {
			route.Gw, route.Scope = r.Via.AsSlice(), netlink.SCOPE_UNIVERSE
			route.SetFlag(netlink.FLAG_ONLINK)
		}
		if err := netlink.RouteReplace(route); err != nil {
			errs = append(errs, fmt.Errorf("set the route to %s on link %d: %w", r, index, err))
		}
	}
	return errors.Join(append(errs, setDefaultRoute(index, lease))...)
}
