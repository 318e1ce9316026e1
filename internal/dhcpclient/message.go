package dhcpclient

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/klog"
	"viver.lan/internal/packet"
)

// maxMessage is the largest DHCP message we say we take, in bytes.
const maxMessage = 1472

// reply is a DHCP message from a server and the Ethernet address it came from.
type reply struct {
	message *dhcpv4.DHCPv4
	from    ether.MAC
	source  netip.Addr // of the IP header
}

// server is the server's identifier, or its address when it gives none.
func (r reply) server() netip.Addr {
	if id := bootnet.Addr(r.message.ServerIdentifier()); id.IsValid() && !id.IsUnspecified() {
		return id
	}
	return r.source
}

// refusal is what a NAK says.
func (r reply) refusal() error {
	if text := r.message.Message(); text != "" {
		return fmt.Errorf("%w: %q", ErrRefused, text)
	}
	return ErrRefused
}

// fromViver reports whether a VIVER boot host wrote the message.
func (r reply) fromViver() bool {
	return string(r.message.Options.Get(dhcpv4.GenericOptionCode(dhcp.OptionMark))) == dhcp.Mark
}

// parseReply reads a frame; ok is false when it is no DHCP answer to mac in
// the transaction xid.
func parseReply(frame []byte, mac ether.MAC, xid dhcpv4.TransactionID) (r reply, ok bool) {
	r, ok = parseAnyReply(frame)
	if !ok || r.message.TransactionID != xid || len(r.message.ClientHWAddr) != len(mac) || ether.MAC(r.message.ClientHWAddr) != mac {
		return reply{}, false
	}
	return r, true
}

// parseAnyReply reads a frame; ok is false when it is no answer of a DHCP
// server, to whomever.
func parseAnyReply(frame []byte) (r reply, ok bool) {
	d, err := packet.ParseDatagram(frame)
	if err != nil || d.Dst.Port() != dhcp.ClientPort || d.Src.Port() != dhcp.ServerPort {
		return reply{}, false
	}
	m, err := dhcp.Decode(d.Payload)
	if err != nil || m.OpCode != dhcpv4.OpcodeBootReply {
		return reply{}, false
	}
	return reply{message: m, from: d.SrcMAC, source: d.Src.Addr()}, true
}

// request is one message of ours: what is asked and whom.
type request struct {
	message *dhcpv4.DHCPv4
	to      netip.Addr // broadcast or the server
	toMAC   ether.MAC
	from    netip.Addr
}

func newMessage(mac ether.MAC, kind dhcpv4.MessageType, xid dhcpv4.TransactionID, more ...dhcpv4.Modifier) (request, error) {
	modifiers := []dhcpv4.Modifier{
		dhcpv4.WithTransactionID(xid),
		dhcpv4.WithHwAddr(mac[:]),
		dhcpv4.WithMessageType(kind),
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier(clientID(mac))),
		dhcpv4.WithOption(dhcpv4.OptClassIdentifier(dhcp.NodeClass)),
		dhcpv4.WithOption(dhcpv4.OptMaxMessageSize(maxMessage)),
		dhcpv4.WithRequestedOptions(
			dhcpv4.OptionSubnetMask,
			// RFC 3442: before the router, or some servers leave them out.
			dhcpv4.OptionClasslessStaticRoute, dhcpv4.GenericOptionCode(optionRoutesOld),
			dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer,
			dhcpv4.OptionHostName, dhcpv4.OptionDomainName, dhcpv4.OptionInterfaceMTU, dhcpv4.OptionNTPServers,
			dhcpv4.OptionRenewTimeValue, dhcpv4.OptionRebindingTimeValue,
			dhcpv4.GenericOptionCode(dhcp.OptionMark)),
	}
	m, err := dhcpv4.New(append(modifiers, more...)...)
	if err != nil {
		return request{}, err
	}
	return broadcastOf(m), nil
}

// broadcastOf asks every server, from no address.
func broadcastOf(m *dhcpv4.DHCPv4) request {
	return request{message: m, to: netip.AddrFrom4([4]byte{255, 255, 255, 255}), toMAC: packet.BroadcastMAC(), from: netip.IPv4Unspecified()}
}

// BroadcastFrame returns the frame in which the card with this MAC sends a message to
// every server.
func BroadcastFrame(m *dhcpv4.DHCPv4, mac ether.MAC) []byte { return broadcastOf(m).frame(mac) }

// DiscoverFrame returns the frame of a DISCOVER with a transaction of its own; began is
// the uptime at which the machine began to ask.
func DiscoverFrame(mac ether.MAC, began time.Duration) ([]byte, error) {
	q, err := newDiscover(mac, NewTransaction(), netip.Addr{})
	if err != nil {
		return nil, err
	}
	q.askingFor(klog.Uptime() - began)
	return q.frame(mac), nil
}

// newDiscover asks every server for an address. want may be invalid; a valid
// one is asked for again (option 50).
func newDiscover(mac ether.MAC, xid dhcpv4.TransactionID, want netip.Addr) (request, error) {
	var more []dhcpv4.Modifier
	if want.IsValid() {
		more = append(more, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(want.AsSlice())))
	}
	return newMessage(mac, dhcpv4.MessageTypeDiscover, xid, more...)
}

// newRequest accepts an offer. It is broadcast, so that the servers that were
// not chosen know.
func newRequest(mac ether.MAC, xid dhcpv4.TransactionID, offer reply) (request, error) {
	return newMessage(mac, dhcpv4.MessageTypeRequest, xid,
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(offer.message.YourIPAddr)),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(offer.server().AsSlice())))
}

// newDecline refuses an address that another machine uses (RFC 2131 section
// 4.4.1, table 5).
func newDecline(mac ether.MAC, xid dhcpv4.TransactionID, l bootnet.Lease) (request, error) {
	q, err := newMessage(mac, dhcpv4.MessageTypeDecline, xid,
		dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(l.Address.Addr().AsSlice())),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(l.Server.AsSlice())),
		dhcpv4.WithOption(dhcpv4.OptMessage("another machine answers for the address")))
	if err != nil {
		return request{}, err
	}
	q.message.Options.Del(dhcpv4.OptionParameterRequestList)
	q.message.Options.Del(dhcpv4.OptionMaximumDHCPMessageSize)
	return q, nil
}

// newRenewal asks to keep a lease: its own server when broadcast is false (T1,
// RENEWING), any server otherwise (T2, REBINDING). RFC 2131 table 5 forbids
// options 50 and 54 in both.
func newRenewal(mac ether.MAC, xid dhcpv4.TransactionID, l bootnet.Lease, broadcast bool) (request, error) {
	q, err := newMessage(mac, dhcpv4.MessageTypeRequest, xid, dhcpv4.WithClientIP(l.Address.Addr().AsSlice()))
	if err != nil {
		return request{}, err
	}
	q.from = l.Address.Addr()
	if !broadcast && l.Server.IsValid() && l.ServerMAC != (ether.MAC{}) {
		q.to, q.toMAC = l.Server, l.ServerMAC
	}
	return q, nil
}

// askingFor sets secs, for how many seconds the machine has been asking (RFC 2131
// table 1): servers that leave the first ones to others go by it.
func (q request) askingFor(d time.Duration) {
	q.message.NumSeconds = uint16(min(d/time.Second, 0xffff))
}

// frame returns the question as it goes on the wire from mac.
func (q request) frame(mac ether.MAC) []byte {
	return packet.Datagram{
		SrcMAC:  mac,
		DstMAC:  q.toMAC,
		Src:     netip.AddrPortFrom(q.from, dhcp.ClientPort),
		Dst:     netip.AddrPortFrom(q.to, dhcp.ServerPort),
		Payload: q.message.ToBytes(),
	}.Marshal()
}

// clientID is the DHCP client identifier (option 61): type Ethernet, then the
// address.
func clientID(m ether.MAC) []byte { return append([]byte{1}, m[:]...) }

// ObservationOf reads a frame that another machine sent; ok is false when it tells of no
// DHCP server.
func ObservationOf(frame []byte, self ether.MAC) (observation dhcp.Observation, ok bool) {
	d, p, ok := messageOf(frame, self)
	if !ok {
		return dhcp.Observation{}, false
	}
	return dhcp.ObservationOf(p, d.Src.Addr(), d.Dst.Addr())
}

// RequestOf reads a frame that another machine sent to DHCP servers.
func RequestOf(frame []byte, self ether.MAC) (p *dhcpv4.DHCPv4, ok bool) {
	_, p, ok = messageOf(frame, self)
	return p, ok && p.OpCode == dhcpv4.OpcodeBootRequest
}

// messageOf reads a frame with a DHCP message that another machine sent.
func messageOf(frame []byte, self ether.MAC) (d packet.Datagram, p *dhcpv4.DHCPv4, ok bool) {
	d, err := packet.ParseDatagram(frame)
	if err != nil || d.SrcMAC == self {
		return d, nil, false
	}
	p, err = dhcp.Decode(d.Payload)
	return d, p, err == nil
}
