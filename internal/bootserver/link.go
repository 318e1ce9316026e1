package bootserver

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/ether"
)

// link is a network interface of this machine: a card, or a bridge, bond or VLAN.
type link struct {
	bootnet.Card
	up, carrier bool
	address     netip.Prefix // the first of its own; invalid for none
}

func (l link) String() string {
	return fmt.Sprintf("%s (%s): %s", l.Name, l.MAC, cmp.Or(l.objection(), l.address.String()))
}

// objection says why nothing can be served there, "" for no reason.
func (l link) objection() string {
	switch {
	case !l.up:
		return "it is switched off: ip link set " + l.Name + " up"
	case !l.carrier:
		return "it has no carrier: is the cable plugged in, is the switch on?"
	case !l.address.IsValid():
		return "it has no IPv4 address, and a server needs one that stays: configure it, or try with ip addr add 10.77.0.1/16 dev " + l.Name
	case l.address.Bits() > 30:
		return fmt.Sprintf("its address %s leaves no room for other machines: want a prefix length of 30 at most", l.address)
	}
	return ""
}

// links are the Ethernet interfaces of this machine, in the kernel's order.
func links() (list []link, err error) {
	found, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	for _, f := range found {
		a := f.Attrs()
		if a.EncapType != "ether" || a.RawFlags&unix.IFF_LOOPBACK != 0 || len(a.HardwareAddr) != 6 {
			continue
		}
		l := link{Card: bootnet.CardFrom(f), up: a.RawFlags&unix.IFF_UP != 0, carrier: bootnet.HasCarrier(f)}
		if l.address, err = addressOf(f); err != nil {
			return nil, err
		}
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b link) int { return a.Index - b.Index })
	return list, nil
}

// addressOf is the first address of a link that other machines may use.
func addressOf(l netlink.Link) (netip.Prefix, error) {
	addresses, err := netlink.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("list the addresses of %s: %w", l.Attrs().Name, err)
	}
	for _, a := range addresses {
		if a.Scope == unix.RT_SCOPE_UNIVERSE && a.Flags&(unix.IFA_F_SECONDARY|unix.IFA_F_TENTATIVE) == 0 {
			return bootnet.PrefixOf(a.IPNet), nil
		}
	}
	return netip.Prefix{}, nil
}

// choose returns the link to serve: the one that want names, by name or MAC address, or
// the only one where that is possible.
func choose(list []link, want string) (link, error) {
	if want == "" {
		fit := slices.DeleteFunc(slices.Clone(list), func(l link) bool { return l.objection() != "" })
		switch len(fit) {
		case 1:
			return fit[0], nil
		case 0:
			return link{}, errors.New("no network interface can be served" + lines(list))
		}
		return link{}, errors.New("several network interfaces could be served: name the one whose machines are to boot with --interface" + lines(fit))
	}
	mac, err := ether.ParseMAC(want)
	for _, l := range list {
		if l.Name == want || err == nil && l.MAC == mac {
			if why := l.objection(); why != "" {
				return link{}, fmt.Errorf("%s cannot be served: %s", l.Name, why)
			}
			return l, nil
		}
	}
	return link{}, fmt.Errorf("this machine has no network interface %s%s", want, lines(list))
}

// lines lists links for people.
func lines(list []link) string {
	if len(list) == 0 {
		return ": there is none"
	}
	var b strings.Builder
	for _, l := range list {
		fmt.Fprintf(&b, "\n  - %s", l)
	}
	return b.String()
}
