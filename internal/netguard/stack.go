package netguard

import (
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The distribution may build the boot NIC into something bigger: make it a port
// of a bridge, a bond or a team, put that into a VRF, lay a macvlan
// over it. Whatever the NIC receives then comes out at the device above, and an
// address that stays on the NIC is of no use to anybody.

// stack is how the boot NIC is built into the machine's network devices.
type stack struct {
	// ports are the devices that are a port of the next one, the NIC first;
	// none when it stands alone.
	ports []netlink.Link
	// top is where the NIC's frames come out: the NIC, or what its ports lead to.
	top netlink.Link
	// holder is where our address belongs: top, or a device on top of it that
	// somebody moved the address to.
	holder netlink.Link
	// vrf is the VRF that holder is in, nil for none, and table the routing table
	// that the kernel looks in for it.
	vrf   netlink.Link
	table int
}

// stackOf finds the stack of a NIC among all links of the machine. has reports
// whether the link of an index has our address.
func stackOf(links []netlink.Link, nic netlink.Link, has func(index int) bool) stack {
	s := stack{top: nic}
	for {
		above := byIndex(links, s.top.Attrs().MasterIndex)
		if above == nil || !takesFrames(above.Type()) || slices.Contains(s.ports, s.top) {
			break
		}
		s.ports = append(s.ports, s.top)
		s.top = above
	}
	s.holder = s.top
	if i := slices.IndexFunc(links, func(l netlink.Link) bool { return stackedOn(l, s.top) && has(l.Attrs().Index) }); i >= 0 && !has(s.top.Attrs().Index) {
		s.holder = links[i]
	}
	s.table = unix.RT_TABLE_MAIN
	if vrf, ok := byIndex(links, s.holder.Attrs().MasterIndex).(*netlink.Vrf); ok {
		s.vrf, s.table = vrf, int(vrf.Table)
	}
	return s
}

func byIndex(links []netlink.Link, index int) netlink.Link {
	for _, l := range links {
		if l.Attrs().Index == index {
			return l
		}
	}
	return nil
}

// takesFrames reports whether what a device of the kind receives through its
// ports is its own. A VRF leaves them their addresses.
func takesFrames(kind string) bool { return kind == "bridge" || kind == "bond" || kind == "team" }

// stackedOn reports whether l is a second card that the kernel makes of lower, on
// the same network. A VLAN is not: its frames carry a tag, which the boot network
// does not know.
func stackedOn(l, lower netlink.Link) bool {
	switch l.Type() {
	case "macvlan", "macvtap", "ipvlan", "ipvtap":
		return l.Attrs().ParentIndex == lower.Attrs().Index
	}
	return false
}

// devices are all that has to be up.
func (s stack) devices() []netlink.Link {
	all := append(slices.Clone(s.ports), s.top)
	if s.holder != s.top {
		all = append(all, s.holder)
	}
	if s.vrf != nil {
		all = append(all, s.vrf)
	}
	return all
}
