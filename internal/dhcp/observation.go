package dhcp

import (
	"fmt"
	"maps"
	"net/netip"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/ether"
)

// Observation is what one packet on the link says about a DHCP server: that it is
// there, or was a moment ago.
type Observation struct {
	Server netip.Addr
	// Viver is true when a boot host of ours has signed the packet as its own.
	Viver bool
	// Spoken is true when the server itself speaks, and not a client with it.
	Spoken bool
	// To is the machine that is answered or that asks.
	To ether.MAC
	// How describes the packet, for people.
	How string
}

// ObservationOf reads an overheard packet, with the addresses of its IP header.
// ok is false when it shows no server. A server is known by its OFFERs, ACKs and
// NAKs, and by what clients send to it: they name it (option 54), or send to its
// address alone. A proxyDHCP server, which only names boot programs, gives no
// addresses and does not count.
func ObservationOf(p *dhcpv4.DHCPv4, from, to netip.Addr) (s Observation, ok bool) {
	s.To, _ = ether.MACOf(p.ClientHWAddr)
	server, named := serverID(p)
	kind := p.MessageType()
	switch {
	case p.OpCode == dhcpv4.OpcodeBootReply:
		s.Viver, s.Spoken = Marked(p), true
		if !named {
			server = from
		}
		ok = s.Viver || fromServer(p)
		s.How = fmt.Sprintf("%s to %s", kind, s.To)
	default:
		if !named {
			server = to
		}
		ok = toServer(kind)
		s.How = fmt.Sprintf("%s of %s", kind, s.To)
	}
	s.Server = server
	return s, ok && machineAddress(server)
}

// Marked reports whether a boot host of ours wrote the packet: an answer, or an
// Enquiry.
func Marked(p *dhcpv4.DHCPv4) bool {
	return string(p.Options.Get(dhcpv4.GenericOptionCode(OptionMark))) == Mark
}

// Enquiry returns the question whether another server would give an address to a
// machine that we offered one to. A server may know that machine and not us, and
// answer it alone; so the question is the machine's own DISCOVER in a transaction
// of ours, to be answered to everybody, with our mark for other boot hosts.
func Enquiry(discover *dhcpv4.DHCPv4, xid dhcpv4.TransactionID) *dhcpv4.DHCPv4 {
	q := *discover
	q.TransactionID = xid
	q.SetBroadcast()
	q.Options = maps.Clone(discover.Options)
	q.UpdateOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(OptionMark), []byte(Mark)))
	return &q
}

// fromServer reports whether an answer is from a server that gives addresses.
func fromServer(p *dhcpv4.DHCPv4) bool {
	gives := p.YourIPAddr.To4() != nil && !p.YourIPAddr.IsUnspecified()
	switch p.MessageType() {
	case dhcpv4.MessageTypeOffer:
		return gives
	case dhcpv4.MessageTypeAck: // without an address it answers an INFORM, or is a boot server's
		return gives || p.ClassIdentifier() == ""
	case dhcpv4.MessageTypeNak:
		return true
	}
	return false
}

// toServer reports whether clients send a message of that type to one server.
func toServer(kind dhcpv4.MessageType) bool {
	switch kind {
	case dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeInform, dhcpv4.MessageTypeDecline, dhcpv4.MessageTypeRelease:
		return true
	}
	return false
}

// machineAddress reports whether one machine can have addr.
func machineAddress(addr netip.Addr) bool {
	return addr.Is4() && !addr.IsUnspecified() && !addr.IsMulticast() && !addr.IsLoopback() &&
		addr != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
