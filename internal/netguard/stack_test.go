package netguard

import (
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func TestStackOf(t *testing.T) {
	at := func(index, master, parent int) netlink.LinkAttrs {
		return netlink.LinkAttrs{Index: index, MasterIndex: master, ParentIndex: parent}
	}
	nic := func(master int) netlink.Link { return &netlink.Device{LinkAttrs: at(2, master, 0)} }
	bridge := func(index, master int) netlink.Link { return &netlink.Bridge{LinkAttrs: at(index, master, 0)} }
	generic := func(kind string, index, master, parent int) netlink.Link {
		return &netlink.GenericLink{LinkAttrs: at(index, master, parent), LinkType: kind}
	}
	for _, c := range []struct {
		name        string
		links       []netlink.Link // the NIC first
		has         []int          // links that have the address
		top, holder int
		ports       int
		table       int
	}{
		{"alone", []netlink.Link{nic(0)}, []int{2}, 2, 2, 0, unix.RT_TABLE_MAIN},
		{"alone, the address gone", []netlink.Link{nic(0), bridge(3, 0)}, nil, 2, 2, 0, unix.RT_TABLE_MAIN},
		{"in a bridge, the address left behind", []netlink.Link{nic(3), bridge(3, 0)}, []int{2}, 3, 3, 1, unix.RT_TABLE_MAIN},
		{"in a bond in a bridge", []netlink.Link{nic(3), &netlink.Bond{LinkAttrs: at(3, 4, 0)}, bridge(4, 0)}, []int{4}, 4, 4, 2, unix.RT_TABLE_MAIN},
		{"in a team", []netlink.Link{nic(3), generic("team", 3, 0, 0)}, nil, 3, 3, 1, unix.RT_TABLE_MAIN},
		{"in a VRF", []netlink.Link{nic(3), &netlink.Vrf{LinkAttrs: at(3, 0, 0), Table: 10}}, []int{2}, 2, 2, 0, 10},
		{"in a bridge in a VRF", []netlink.Link{nic(3), bridge(3, 4), &netlink.Vrf{LinkAttrs: at(4, 0, 0), Table: 10}}, nil, 3, 3, 1, 10},
		{"under a macvlan", []netlink.Link{nic(0), &netlink.Macvlan{LinkAttrs: at(3, 0, 2)}}, []int{2}, 2, 2, 0, unix.RT_TABLE_MAIN},
		{"moved to a macvlan", []netlink.Link{nic(0), &netlink.Macvlan{LinkAttrs: at(3, 0, 2)}}, []int{3}, 2, 3, 0, unix.RT_TABLE_MAIN},
		{"doubled on a macvlan", []netlink.Link{nic(0), &netlink.Macvlan{LinkAttrs: at(3, 0, 2)}}, []int{2, 3}, 2, 2, 0, unix.RT_TABLE_MAIN},
		{"moved to a macvlan on a bridge", []netlink.Link{nic(3), bridge(3, 0), &netlink.Macvlan{LinkAttrs: at(4, 0, 3)}}, []int{4}, 3, 4, 1, unix.RT_TABLE_MAIN},
		{"moved to a VLAN, where the network is not", []netlink.Link{nic(0), &netlink.Vlan{LinkAttrs: at(3, 0, 2)}}, []int{3}, 2, 2, 0, unix.RT_TABLE_MAIN},
		{"moved to an unrelated device", []netlink.Link{nic(0), bridge(3, 0)}, []int{3}, 2, 2, 0, unix.RT_TABLE_MAIN},
		{"its master is in another namespace", []netlink.Link{nic(9)}, nil, 2, 2, 0, unix.RT_TABLE_MAIN},
	} {
		has := make(map[int]bool)
		for _, i := range c.has {
			has[i] = true
		}
		s := stackOf(c.links, c.links[0], func(index int) bool { return has[index] })
		if s.top.Attrs().Index != c.top || s.holder.Attrs().Index != c.holder || len(s.ports) != c.ports || s.table != c.table {
			t.Errorf("%s: top %d, holder %d, %d ports, table %d; want %d, %d, %d, %d", c.name,
				s.top.Attrs().Index, s.holder.Attrs().Index, len(s.ports), s.table, c.top, c.holder, c.ports, c.table)
		}
	}
}
