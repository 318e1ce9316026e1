package packet

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"viver.lan/internal/ether"
)

// Sizes of the headers before a DHCP message, in bytes (RFC 791, RFC 768).
const (
	etherHeader = 14
	ipHeader    = 20
	udpHeader   = 8
)

var errNotUDP = errors.New("not a whole UDP datagram over IPv4 and Ethernet")

// Datagram is a UDP datagram together with the Ethernet addresses that carry
// it: DHCP runs before the kernel's own stack has an address.
type Datagram struct {
	SrcMAC, DstMAC ether.MAC
	Src, Dst       netip.AddrPort
	Payload        []byte
}

// Marshal returns the Ethernet frame.
func (d Datagram) Marshal() []byte {
	b := make([]byte, etherHeader+ipHeader+udpHeader, etherHeader+ipHeader+udpHeader+len(d.Payload))
	copy(b[0:6], d.DstMAC[:])
	copy(b[6:12], d.SrcMAC[:])
	binary.BigEndian.PutUint16(b[12:], unix.ETH_P_IP)

	ip := b[etherHeader:]
	ip[0] = 0x45 // version 4, five words of header
	binary.BigEndian.PutUint16(ip[2:], uint16(ipHeader+udpHeader+len(d.Payload)))
	ip[6] = 0x40 // don't fragment
	ip[8] = 64   // time to live
	ip[9] = unix.IPPROTO_UDP
	src, dst := d.Src.Addr().As4(), d.Dst.Addr().As4()
	copy(ip[12:16], src[:])
	copy(ip[16:20], dst[:])
	binary.BigEndian.PutUint16(ip[10:], ^sum(0, ip[:ipHeader]))

	udp := ip[ipHeader:]
	length := uint16(udpHeader + len(d.Payload))
	binary.BigEndian.PutUint16(udp[0:], d.Src.Port())
	binary.BigEndian.PutUint16(udp[2:], d.Dst.Port())
	binary.BigEndian.PutUint16(udp[4:], length)
	pseudo := sum(uint32(unix.IPPROTO_UDP)+uint32(length), ip[12:20])
	check := ^sum(uint32(sum(uint32(pseudo), udp[:udpHeader])), d.Payload)
	if check == 0 {
		check = 0xffff // zero would mean "no checksum"
	}
	binary.BigEndian.PutUint16(udp[6:], check)
	return append(b, d.Payload...)
}

// ParseDatagram reads an Ethernet frame. The payload aliases frame.
//
// The UDP checksum is not verified: with checksum offload a frame from the
// same host or a virtual card carries a checksum that is not filled in yet.
func ParseDatagram(frame []byte) (Datagram, error) {
	if len(frame) < etherHeader+ipHeader+udpHeader || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP {
		return Datagram{}, errNotUDP
	}
	ip := frame[etherHeader:]
	header, total := int(ip[0]&0xf)*4, int(binary.BigEndian.Uint16(ip[2:]))
	fragment := binary.BigEndian.Uint16(ip[6:]) & 0x3fff // more-fragments flag and offset
	if ip[0]>>4 != 4 || header < ipHeader || total > len(ip) || total < header+udpHeader ||
		fragment != 0 || ip[9] != unix.IPPROTO_UDP || sum(0, ip[:header]) != 0xffff {
		return Datagram{}, errNotUDP
	}
	udp := ip[header:total]
	length := int(binary.BigEndian.Uint16(udp[4:]))
	if length < udpHeader || length > len(udp) {
		return Datagram{}, errNotUDP
	}
	return Datagram{
		DstMAC:  ether.MAC(frame[0:6]),
		SrcMAC:  ether.MAC(frame[6:12]),
		Src:     netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[12:16])), binary.BigEndian.Uint16(udp[0:])),
		Dst:     netip.AddrPortFrom(netip.AddrFrom4([4]byte(ip[16:20])), binary.BigEndian.Uint16(udp[2:])),
		Payload: udp[udpHeader:length],
	}, nil
}

// sum is the Internet checksum before its complement (RFC 1071).
func sum(start uint32, b []byte) uint16 {
	s := start
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// BroadcastMAC is the address that every card on the link listens to.
func BroadcastMAC() ether.MAC { return ether.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} }
