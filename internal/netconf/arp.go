package netconf

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"viver.lan/internal/ether"
)

// Operations of ARP (RFC 826).
const (
	arpRequest = 1
	arpReply   = 2
)

const arpSize = 28 // bytes of an ARP packet for IPv4 over Ethernet

var errNotARP = errors.New("not an ARP packet for IPv4 over Ethernet")

// arpPacket is an ARP packet for IPv4 over Ethernet.
type arpPacket struct {
	op        uint16
	senderMAC ether.MAC
	senderIP  netip.Addr
	targetMAC ether.MAC
	targetIP  netip.Addr
}

// probeFor asks who uses ip without claiming it (RFC 5227 section 2.1.1).
func probeFor(ip netip.Addr, mac ether.MAC) arpPacket {
	return arpPacket{op: arpRequest, senderMAC: mac, senderIP: netip.IPv4Unspecified(), targetIP: ip}
}

// announcementOf claims ip (RFC 5227 section 2.3).
func announcementOf(ip netip.Addr, mac ether.MAC) arpPacket {
	return arpPacket{op: arpRequest, senderMAC: mac, senderIP: ip, targetIP: ip}
}

// marshal returns the broadcast Ethernet frame.
func (p arpPacket) marshal() []byte {
	b := make([]byte, etherHeader+arpSize)
	dst := broadcastMAC()
	copy(b[0:6], dst[:])
	copy(b[6:12], p.senderMAC[:])
	binary.BigEndian.PutUint16(b[12:], unix.ETH_P_ARP)

	a := b[etherHeader:]
	binary.BigEndian.PutUint16(a[0:], 1) // Ethernet
	binary.BigEndian.PutUint16(a[2:], unix.ETH_P_IP)
	a[4], a[5] = 6, 4 // lengths of the addresses
	binary.BigEndian.PutUint16(a[6:], p.op)
	sender, target := p.senderIP.As4(), p.targetIP.As4()
	copy(a[8:14], p.senderMAC[:])
	copy(a[14:18], sender[:])
	copy(a[18:24], p.targetMAC[:])
	copy(a[24:28], target[:])
	return b
}

// parseARP reads an Ethernet frame.
func parseARP(frame []byte) (arpPacket, error) {
	if len(frame) < etherHeader+arpSize || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_ARP {
		return arpPacket{}, errNotARP
	}
	a := frame[etherHeader:]
	if binary.BigEndian.Uint16(a[0:]) != 1 || binary.BigEndian.Uint16(a[2:]) != unix.ETH_P_IP || a[4] != 6 || a[5] != 4 {
		return arpPacket{}, errNotARP
	}
	return arpPacket{
		op:        binary.BigEndian.Uint16(a[6:]),
		senderMAC: ether.MAC(a[8:14]),
		senderIP:  netip.AddrFrom4([4]byte(a[14:18])),
		targetMAC: ether.MAC(a[18:24]),
		targetIP:  netip.AddrFrom4([4]byte(a[24:28])),
	}, nil
}

// takes reports whether p means that somebody other than us has ip, or is
// about to take it at this very moment (RFC 5227 section 2.1.1).
func (p arpPacket) takes(ip netip.Addr, us ether.MAC) bool {
	probing := p.senderMAC != us && p.op == arpRequest && p.senderIP.IsUnspecified() && p.targetIP == ip
	return p.conflicts(ip, us) || probing
}

// conflicts reports whether p means that somebody other than us has ip, which is
// ours (RFC 5227 section 2.4). One who only asks gets the kernel's answer.
func (p arpPacket) conflicts(ip netip.Addr, us ether.MAC) bool {
	return p.senderMAC != us && p.senderIP == ip
}
