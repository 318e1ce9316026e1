package bootnet

import (
	"net"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestIsCard(t *testing.T) {
	attrs := netlink.LinkAttrs{EncapType: "ether", HardwareAddr: make(net.HardwareAddr, 6)}
	with := func(edit func(a *netlink.LinkAttrs)) netlink.LinkAttrs {
		a := attrs
		edit(&a)
		return a
	}
	for _, c := range []struct {
		name string
		link netlink.Link
		want bool
	}{
		{"card", &netlink.Device{LinkAttrs: attrs}, true},
		{"veth", &netlink.Veth{LinkAttrs: attrs}, true},
		{"bridge", &netlink.Bridge{LinkAttrs: attrs}, false},
		{"tap", &netlink.Tuntap{LinkAttrs: attrs}, false},
		{"VLAN", &netlink.Vlan{LinkAttrs: attrs}, false},
		{"bond", &netlink.Bond{LinkAttrs: attrs}, false},
		{"dummy", &netlink.Dummy{LinkAttrs: attrs}, false},
		{"loopback", &netlink.Device{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.RawFlags = unix.IFF_LOOPBACK })}, false},
		{"InfiniBand", &netlink.Device{LinkAttrs: with(func(a *netlink.LinkAttrs) {
			a.EncapType, a.HardwareAddr = "infiniband", make(net.HardwareAddr, 20)
		})}, false},
		{"modem", &netlink.Device{LinkAttrs: with(func(a *netlink.LinkAttrs) { a.EncapType, a.HardwareAddr = "none", nil })}, false},
	} {
		if got := IsCard(c.link); got != c.want {
			t.Errorf("%s: isCard = %v, want %v", c.name, got, c.want)
		}
	}
}
