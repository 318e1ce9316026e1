package firewall

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// end is an end of a packet's way.
type end int

const (
	source end = iota
	destination
)

// pass is one kind of packet that may pass.
type pass struct {
	proto uint8 // unix.IPPROTO_TCP, …_UDP or …_ICMPV6
	// outgoing is for packets that go from here.
	outgoing bool
	// far is the network of the machine at the other end; invalid for any.
	far netip.Prefix
	// port is the port at the end that at names; icmp the type for ICMPv6.
	port uint16
	at   end
	icmp uint8
	// follows is for TCP packets that do not open a connection: the answers of a
	// port on another machine. They need no table of connections.
	follows bool
}

// ICMPv6 types (RFC 4861): what iPXE asks for, and what a boot host answers so
// that it does not wait.
const (
	routerSolicitation  = 133
	routerAdvertisement = 134
)

// dhcpServer is a port that machines without an address, and relays in other
// networks, send to.
const dhcpServer = 67

func incoming(network netip.Prefix, ports Ports) []pass {
	var list []pass
	for _, port := range ports.TCP {
		list = append(list,
			pass{proto: unix.IPPROTO_TCP, far: network, port: port, at: destination},
			pass{proto: unix.IPPROTO_TCP, far: network, port: port, at: source, follows: true})
	}
	for _, port := range ports.UDP {
		p := pass{proto: unix.IPPROTO_UDP, far: network, port: port, at: destination}
		if port == dhcpServer {
			p.far = netip.Prefix{}
		}
		list = append(list, p)
	}
	return append(list, pass{proto: unix.IPPROTO_ICMPV6, icmp: routerSolicitation})
}

func outgoing(network netip.Prefix, ports Ports) []pass {
	var list []pass
	for _, port := range ports.TCP {
		list = append(list,
			pass{proto: unix.IPPROTO_TCP, outgoing: true, far: network, port: port, at: destination},
			pass{proto: unix.IPPROTO_TCP, outgoing: true, far: network, port: port, at: source})
	}
	for _, port := range ports.UDP {
		// Also to groups and to everybody, which are in no network.
		list = append(list,
			pass{proto: unix.IPPROTO_UDP, outgoing: true, port: port, at: source},
			pass{proto: unix.IPPROTO_UDP, outgoing: true, port: port, at: destination})
	}
	return append(list, pass{proto: unix.IPPROTO_ICMPV6, outgoing: true, icmp: routerAdvertisement})
}
