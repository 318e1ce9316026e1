package netconf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

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

func removeAddress(index int, address netip.Prefix) error {
	err := netlink.AddrDel(device(index), &netlink.Addr{IPNet: ipNet(address)})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("take the address %s from link %d: %w", address, index, err)
	}
	return nil
}

func hasAddress(index int, address netip.Prefix) (bool, error) {
	addrs, err := netlink.AddrList(device(index), netlink.FAMILY_V4)
	if err != nil {
		return false, fmt.Errorf("list addresses of link %d: %w", index, err)
	}
	for _, a := range addrs {
		if prefixOf(a.IPNet) == address {
			return true, nil
		}
	}
	return false, nil
}

// connectedRoute is what the kernel itself adds with the address.
func connectedRoute(index int, address netip.Prefix) *netlink.Route {
	return &netlink.Route{
		LinkIndex: index,
		Dst:       ipNet(address.Masked()),
		Src:       address.Addr().AsSlice(),
		Scope:     netlink.SCOPE_LINK,
		Protocol:  unix.RTPROT_KERNEL,
		Table:     unix.RT_TABLE_MAIN,
	}
}

func hasConnectedRoute(index, table int, address netip.Prefix) (bool, error) {
	if address.Bits() == 32 {
		return true, nil // a host address has none
	}
	want := connectedRoute(index, address)
	want.Table = table
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, want,
		netlink.RT_FILTER_OIF|netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
	if err != nil {
		return false, fmt.Errorf("list routes of link %d: %w", index, err)
	}
	return len(routes) > 0, nil
}

func hasDefaultRoute() (bool, error) {
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4,
		&netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return false, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil || prefixOf(r.Dst).Bits() == 0 {
			return true, nil
		}
	}
	return false, nil
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
