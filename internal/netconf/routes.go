package netconf

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Route is a way to a network that came with the lease (RFC 3442).
type Route struct {
	To  netip.Prefix `json:"to"`
	Via netip.Addr   `json:"via,omitzero"` // the router; invalid: To is on the link itself
}

// String is the route as ip(8) writes it.
func (r Route) String() string {
	if !r.Via.IsValid() {
		return r.To.String()
	}
	return fmt.Sprintf("%s via %s", r.To, r.Via)
}

// maxRoutes bounds what a server can make us put into the kernel.
const maxRoutes = 128

// optionRoutesOld is the number that option 121 had before RFC 3442 in servers
// of Microsoft's, some of which send it alone.
const optionRoutesOld = 249

// classlessRoutes reads option 121, or 249 where there is no 121. present is
// true when the server sent one; err when it cannot be read.
func classlessRoutes(m *dhcpv4.DHCPv4) (routes []Route, present bool, err error) {
	for _, code := range []dhcpv4.OptionCode{dhcpv4.OptionClasslessStaticRoute, dhcpv4.GenericOptionCode(optionRoutesOld)} {
		value := m.Options.Get(code)
		if len(value) == 0 {
			continue
		}
		var list dhcpv4.Routes
		if err := list.FromBytes(value); err != nil {
			return nil, true, fmt.Errorf("option %d: %w", code.Code(), err)
		}
		if len(list) > maxRoutes {
			return nil, true, fmt.Errorf("option %d holds %d routes, at most %d are taken", code.Code(), len(list), maxRoutes)
		}
		for _, r := range list {
			routes = append(routes, routeFrom(r))
		}
		return routes, true, nil
	}
	return nil, false, nil
}

func routeFrom(r *dhcpv4.Route) Route {
	route := Route{To: prefixOf(r.Dest).Masked(), Via: addr4(r.Router)}
	if route.Via.IsUnspecified() {
		route.Via = netip.Addr{}
	}
	return route
}

// setRouters fills in Router and Routes. Where there are classless routes
// option 3 does not count (RFC 3442), unless nobody can read them.
func (l *Lease) setRouters(m *dhcpv4.DHCPv4) {
	routes, present, err := classlessRoutes(m)
	if !present || err != nil {
		if routers := addrs4(m.Router()); len(routers) > 0 {
			l.Router = routers[0]
		}
		return
	}
	for _, r := range routes {
		switch {
		case r.To.Bits() == 0 && r.Via.IsValid() && !l.Router.IsValid():
			l.Router = r.Via
		case r.harmless(l.Address):
			l.Routes = append(l.Routes, r)
		}
	}
}

// harmless reports whether the route takes nothing away that the root disk
// needs: our own network is on the link, and loopback and multicast are the
// kernel's.
func (r Route) harmless(address netip.Prefix) bool {
	to := r.To.Addr()
	return r.To.Bits() > 0 && r.To != address.Masked() && r.Via != address.Addr() && !to.IsLoopback() && !to.IsMulticast()
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

// removeRoutes takes away what old brought and lease does not.
func removeRoutes(index int, old, lease Lease) {
	for _, r := range old.Routes {
		if !slices.Contains(lease.Routes, r) {
			// It may have gone with its address or by somebody's hand.
			_ = netlink.RouteDel(&netlink.Route{LinkIndex: index, Dst: ipNet(r.To), Protocol: unix.RTPROT_DHCP, Table: unix.RT_TABLE_MAIN})
		}
	}
}
