package blockdaemon

import (
	"bytes"
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strconv"
)

// longestName is what the members' words have room for, in bytes.
const longestName = 63

// defaultName is one that no other node has, not even a copy of this machine,
// and that is the same at the next start. Two nodes of one name are one node to
// the others.
func defaultName(host string, swarm netip.AddrPort, macs []net.HardwareAddr) string {
	name := host + ":" + strconv.Itoa(int(swarm.Port()))
	if !swarm.Addr().IsUnspecified() {
		name = host + "/" + swarm.String()
	}
	// Addresses that the maker gave come first: others may change.
	slices.SortFunc(macs, func(a, b net.HardwareAddr) int {
		return cmp.Or(cmp.Compare(a[0]&2, b[0]&2), bytes.Compare(a, b))
	})
	if len(macs) > 0 {
		name += "/" + macs[0].String()
	}
	return name[max(0, len(name)-longestName):] // the end is what tells nodes apart
}

// macs returns the Ethernet addresses of this machine.
func macs() (list []net.HardwareAddr) {
	links, err := net.Interfaces()
	if err != nil {
		return nil // a name without them will do
	}
	for _, l := range links {
		if len(l.HardwareAddr) == 6 {
			list = append(list, l.HardwareAddr)
		}
	}
	return list
}
