package dhcpclient

import (
	"fmt"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/bootnet"
)

// maxRoutes bounds what a server can make us put into the kernel.
const maxRoutes = 128

// optionRoutesOld is the number that option 121 had before RFC 3442 in servers
// of Microsoft's, some of which send it alone.
const optionRoutesOld = 249

// classlessRoutes reads option 121, or 249 where there is no 121. present is
// true when the server sent one; err when it cannot be read.
func classlessRoutes(m *dhcpv4.DHCPv4) (routes []bootnet.Route, present bool, err error) {
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

func routeFrom(r *dhcpv4.Route) bootnet.Route {
	route := bootnet.Route{To: bootnet.PrefixOf(r.Dest).Masked(), Via: bootnet.Addr(r.Router)}
	if route.Via.IsUnspecified() {
		route.Via = netip.Addr{}
	}
	return route
}

// setRouters fills in Router and Routes. Where there are classless routes
// option 3 does not count (RFC 3442), unless nobody can read them.
func setRouters(l *bootnet.Lease, m *dhcpv4.DHCPv4) {
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
		case harmless(r, l.Address):
			l.Routes = append(l.Routes, r)
		}
	}
}

// harmless reports whether the route takes nothing away that the root disk
// needs: our own network is on the link, and loopback and multicast are the
// kernel's.
func harmless(r bootnet.Route, address netip.Prefix) bool {
	to := r.To.Addr()
	return r.To.Bits() > 0 && r.To != address.Masked() && r.Via != address.Addr() && !to.IsLoopback() && !to.IsMulticast()
}
