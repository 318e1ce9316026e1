package netguard

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"viver.lan/internal/bootnet"
)

func removeAddress(index int, address netip.Prefix) error {
	err := netlink.AddrDel(bootnet.Device(index), &netlink.Addr{IPNet: bootnet.IPNet(address)})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("take the address %s from link %d: %w", address, index, err)
	}
	return nil
}

func hasAddress(index int, address netip.Prefix) (bool, error) {
	addrs, err := netlink.AddrList(bootnet.Device(index), netlink.FAMILY_V4)
	if err != nil {
		return false, fmt.Errorf("list addresses of link %d: %w", index, err)
	}
	for _, a := range addrs {
		if bootnet.PrefixOf(a.IPNet) == address {
			return true, nil
		}
	}
	return false, nil
}

// connectedRoute is what the kernel itself adds with the address.
func connectedRoute(index int, address netip.Prefix) *netlink.Route {
	return &netlink.Route{
		LinkIndex: index,
		Dst:       bootnet.IPNet(address.Masked()),
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
		if r.Dst == nil || bootnet.PrefixOf(r.Dst).Bits() == 0 {
			return true, nil
		}
	}
	return false, nil
}

// removeRoutes takes away what old brought and lease does not.
func removeRoutes(index int, old, lease bootnet.Lease) {
	for _, r := range old.Routes {
		if !slices.Contains(lease.Routes, r) {
			// It may have gone with its address or by somebody's hand.
			_ = netlink.RouteDel(&netlink.Route{LinkIndex: index, Dst: bootnet.IPNet(r.To), Protocol: unix.RTPROT_DHCP, Table: unix.RT_TABLE_MAIN})
		}
	}
}
