package lantest

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/packet"
)

// Server is a DHCP server at the far end that does what no real one can be told to
// do.
type Server struct {
	Address netip.Addr // of a network /24
	// Next is the last byte of the address that it offers next.
	Next byte
	// Answer changes an ordinary answer; false: none is sent. nil: as it is.
	Answer func(s *Server, asked, m *dhcpv4.DHCPv4) bool
	// Heard counts what it was asked.
	Heard map[dhcpv4.MessageType]*atomic.Int32

	socket *packet.Socket
	mac    ether.MAC
}

// Serve answers on a link at the far end until the test ends.
func Serve(t *testing.T, on string, s *Server) *Server {
	t.Helper()
	s.socket, s.mac = FarSocket(t, on, packet.EtherTypeIPv4, packet.UDPTo(dhcp.ServerPort))
	s.Heard = map[dhcpv4.MessageType]*atomic.Int32{}
	for _, kind := range []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeDecline} {
		s.Heard[kind] = new(atomic.Int32)
	}
	Receive(t, s.socket, func(frame []byte) {
		if d, err := packet.ParseDatagram(frame); err == nil {
			if m, err := dhcp.Decode(d.Payload); err == nil {
				s.reply(m)
			}
		}
	})
	return s
}

func (s *Server) reply(asked *dhcpv4.DHCPv4) {
	kind := asked.MessageType()
	if count := s.Heard[kind]; count != nil {
		count.Add(1)
	}
	reply := map[dhcpv4.MessageType]dhcpv4.MessageType{
		dhcpv4.MessageTypeDiscover: dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeRequest: dhcpv4.MessageTypeAck}[kind]
	to, named := netip.AddrFromSlice(asked.ServerIdentifier().To4())
	if reply == dhcpv4.MessageTypeNone || named && to != s.Address {
		return
	}
	network := s.Address.As4()
	m := &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootReply, TransactionID: asked.TransactionID, ClientHWAddr: asked.ClientHWAddr,
		YourIPAddr: net.IPv4(network[0], network[1], network[2], s.Next), Options: dhcpv4.OptionsFromList(
			dhcpv4.OptMessageType(reply), dhcpv4.OptSubnetMask(net.CIDRMask(24, 32)),
			dhcpv4.OptServerIdentifier(s.Address.AsSlice()), dhcpv4.OptIPAddressLeaseTime(time.Hour))}
	if s.Answer != nil && !s.Answer(s, asked, m) {
		return
	}
	_ = s.socket.Send(packet.Datagram{SrcMAC: s.mac, DstMAC: packet.BroadcastMAC(), Src: netip.AddrPortFrom(s.Address, dhcp.ServerPort),
		Dst: netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), dhcp.ClientPort), Payload: m.ToBytes()}.Marshal())
}

// Refuse is an Answer to requests with a NAK.
func Refuse(_ *Server, asked, m *dhcpv4.DHCPv4) bool {
	if asked.MessageType() == dhcpv4.MessageTypeRequest {
		m.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeNak))
	}
	return true
}

// Withhold is an Answer to everything but requests.
func Withhold(_ *Server, asked, _ *dhcpv4.DHCPv4) bool {
	return asked.MessageType() != dhcpv4.MessageTypeRequest
}

// RequestTo returns the frame in which a machine asks a server for an address.
func RequestTo(t *testing.T, server netip.Addr, mac ether.MAC) []byte {
	t.Helper()
	m, err := dhcpv4.New(dhcpv4.WithHwAddr(mac[:]), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server.AsSlice())))
	if err != nil {
		t.Fatal(err)
	}
	return packet.Datagram{SrcMAC: mac, DstMAC: packet.BroadcastMAC(), Src: netip.AddrPortFrom(netip.IPv4Unspecified(), dhcp.ClientPort),
		Dst: netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), dhcp.ServerPort), Payload: m.ToBytes()}.Marshal()
}

// AnswerAllARP answers every ARP request on a link at the far end.
func AnswerAllARP(t *testing.T, on string) {
	t.Helper()
	s, mac := FarSocket(t, on, packet.EtherTypeARP, nil)
	Receive(t, s, func(frame []byte) {
		if p, err := packet.ParseARP(frame); err == nil && p.Op == packet.ARPRequest && p.SenderMAC != mac && p.SenderIP != p.TargetIP {
			_ = s.Send(packet.ARP{Op: packet.ARPReply, SenderMAC: mac, SenderIP: p.TargetIP, TargetMAC: p.SenderMAC, TargetIP: p.SenderIP}.Marshal())
		}
	})
}
