package netguard

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/ether"
)

// downGrace is how long a device that somebody switched off stays so. Tools do
// that on the way to something else, which is refused while the device is up: to
// make it a port of a bond, to rename it.
const downGrace = time.Second

// repair is one check of the boot link: what was restored, and after which time to
// check again at the latest, 0 for no hurry.
type repair struct {
	changes []string
	checkIn time.Duration
	// link is the boot NIC, holder the device with the address; moved says that it was
	// another one before.
	link, holder bootnet.Card
	moved        bool
}

func (r *repair) record(format string, args ...any) {
	r.changes = append(r.changes, fmt.Sprintf(format, args...))
}

func (r *repair) String() string { return strings.Join(r.changes, ", ") }

// restore checks the boot link and puts back what is missing.
func (g *Guard) restore() (r repair, err error) {
	g.changing.Lock()
	defer g.changing.Unlock()
	r.link = g.link
	links, err := netlink.LinkList()
	if err != nil {
		return r, fmt.Errorf("find the boot link: %w", err)
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_V4)
	if err != nil {
		return r, fmt.Errorf("list addresses: %w", err)
	}
	nic, err := g.find(links)
	if err != nil {
		return r, err
	}
	r.link = g.link
	g.checkCarrier(nic)
	s := stackOf(links, nic, func(index int) bool { return owns(addrs, index, g.lease.Address.Addr()) })
	if err := g.switchOn(s, &r); err != nil {
		return r, err
	}
	if err := g.placeAddress(s, byIndex(links, g.holder.Index), addrs, &r); err != nil {
		return r, err
	}
	r.moved = g.holder.Index != s.holder.Attrs().Index
	r.holder = bootnet.CardFrom(s.holder)
	g.set(func() { g.top, g.holder = bootnet.CardFrom(s.top), r.holder })
	g.unannounced = g.unannounced || r.moved
	if len(g.downSince) > 0 {
		return r, nil // there is no way yet
	}
	if err := g.routes(s, &r); err != nil || !g.unannounced {
		return r, err
	}
	if err := bootnet.Announce(g.holder, g.lease.Address.Addr()); err != nil {
		return r, err
	}
	g.unannounced = false
	return r, nil
}

// set has others see what f writes. It runs with changing held, f with mu too.
func (g *Guard) set(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
}

func owns(addrs []netlink.Addr, index int, ip netip.Addr) bool {
	return slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.LinkIndex == index && bootnet.PrefixOf(a.IPNet).Addr() == ip })
}

// find returns the boot link by its index, or by its MAC when the driver was
// reloaded and the index is a new one.
func (g *Guard) find(links []netlink.Link) (netlink.Link, error) {
	nic := byIndex(links, g.link.Index)
	if nic == nil {
		i := slices.IndexFunc(links, func(l netlink.Link) bool { return bootnet.IsCard(l) && ownMAC(l) == g.link.MAC })
		if i < 0 {
			return nil, fmt.Errorf("the boot link %s is gone, and no other card has its address", g.link)
		}
		nic = links[i]
	}
	g.set(func() { g.link.Index, g.link.Name = nic.Attrs().Index, nic.Attrs().Name }) // udev may have renamed it
	return nic, nil
}

// ownMAC is the address that a card came with; in a bond all have one.
func ownMAC(l netlink.Link) ether.MAC {
	a := l.Attrs()
	for _, mac := range []net.HardwareAddr{a.PermHWAddr, a.HardwareAddr} {
		if len(mac) == len(ether.MAC{}) {
			return ether.MAC(mac)
		}
	}
	return ether.MAC{}
}

// switchOn switches on what has been off for longer than the grace.
func (g *Guard) switchOn(s stack, r *repair) error {
	off := make(map[int]time.Time)
	for _, l := range s.devices() {
		a := l.Attrs()
		if a.RawFlags&unix.IFF_UP != 0 {
			continue
		}
		since, known := g.downSince[a.Index]
		if !known {
			since = time.Now()
		}
		if left := downGrace - time.Since(since); left > 0 {
			off[a.Index] = since
			r.checkIn = max(r.checkIn, left)
			continue
		}
		if err := bootnet.LinkUp(a.Index); err != nil {
			return err
		}
		r.record("link %s up", a.Name)
	}
	g.downSince = off
	return nil
}

// placeAddress gives the address to its holder, and then takes it from where it is of
// no use: from ports, and from what the NIC was a port of before.
func (g *Guard) placeAddress(s stack, before netlink.Link, addrs []netlink.Addr, r *repair) error {
	index, address := s.holder.Attrs().Index, g.lease.Address
	if !slices.ContainsFunc(addrs, func(a netlink.Addr) bool { return a.LinkIndex == index && bootnet.PrefixOf(a.IPNet) == address }) {
		if err := bootnet.AddAddress(index, address); err != nil {
			return err
		}
		r.record("address %s on %s", address, s.holder.Attrs().Name)
	}
	useless := slices.Clone(s.ports)
	if before != nil && takesFrames(before.Type()) && !slices.Contains(s.devices(), before) {
		useless = append(useless, before)
	}
	for _, a := range addrs {
		l := byIndex(useless, a.LinkIndex)
		if p := bootnet.PrefixOf(a.IPNet); l != nil && p.Addr() == address.Addr() {
			if err := removeAddress(a.LinkIndex, p); err != nil {
				return err
			}
			r.record("address %s off %s", p.Addr(), l.Attrs().Name)
		}
	}
	return nil
}

// routes keeps the way to the boot network.
func (g *Guard) routes(s stack, r *repair) error {
	index, address := s.holder.Attrs().Index, g.lease.Address
	if ok, err := hasConnectedRoute(index, s.table, address); err != nil {
		return err
	} else if !ok {
		route := connectedRoute(index, address)
		route.Table = s.table
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("put back the route to %s: %w", address.Masked(), err)
		}
		r.record("route to %s", address.Masked())
	}
	if s.vrf != nil {
		if err := enterVRF(index, address.Addr()); err != nil {
			return err
		}
	}
	if err := keepPolicyRoute(index, address); err != nil {
		return err
	}
	if len(r.changes) == 0 || !g.lease.Router.IsValid() || s.vrf != nil {
		return nil
	}
	// The default route is the distribution's to change, and the root disk does
	// not need it. We only put it back when it went with what we put back now.
	if ok, err := hasDefaultRoute(); err != nil || ok {
		return err
	}
	if err := bootnet.SetRoutes(index, g.lease); err != nil {
		return err
	}
	r.record("default route")
	return nil
}

func removeAddress(index int, address netip.Prefix) error {
	err := netlink.AddrDel(bootnet.Device(index), &netlink.Addr{IPNet: bootnet.IPNet(address)})
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) { // it is gone already
		return fmt.Errorf("take the address %s from link %d: %w", address, index, err)
	}
	return nil
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
	return slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Dst == nil || bootnet.PrefixOf(r.Dst).Bits() == 0 }), nil
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
