package packet

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"viver.lan/internal/ether"
)

// Operations of ARP (RFC 826).
const (
	ARPRequest = 1
	ARPReply   = 2
)

// ARPSize is the size of an ARP packet for IPv4 over Ethernet, in bytes.
const ARPSize = 28

var errNotARP = errors.New("not an ARP packet for IPv4 over Ethernet")

// ARP is an ARP packet for IPv4 over Ethernet.
type ARP struct {
	Op        uint16
	SenderMAC ether.MAC
	SenderIP  netip.Addr
	TargetMAC ether.MAC
	TargetIP  netip.Addr
}

// ARPProbe asks who uses ip without claiming it (RFC 5227 section 2.1.1).
func ARPProbe(ip netip.Addr, mac ether.MAC) ARP {
	return ARP{Op: ARPRequest, SenderMAC: mac, SenderIP: netip.IPv4Unspecified(), TargetIP: ip}
}

// ARPAnnouncement claims ip (RFC 5227 section 2.3).
func ARPAnnouncement(ip netip.Addr, mac ether.MAC) ARP {
	return ARP{Op: ARPRequest, SenderMAC: mac, SenderIP: ip, TargetIP: ip}
}

// Marshal returns the broadcast Ethernet frame.
func (p ARP) Marshal() []byte {
	b := make([]byte, etherHeader+ARPSize)
	dst := BroadcastMAC()
	copy(b[0:6], dst[:])
	copy(b[6:12], p.SenderMAC[:])
	binary.BigEndian.PutUint16(b[12:], unix.ETH_P_ARP)

	a := b[etherHeader:]
	binary.BigEndian.PutUint16(a[0:], 1) // Ethernet
	binary.BigEndian.PutUint16(a[2:], unix.ETH_P_IP)
	a[4], a[5] = 6, 4 // lengths of the addresses
	binary.BigEndian.PutUint16(a[6:], p.Op)
	sender, target := p.SenderIP.As4(), p.TargetIP.As4()
	copy(a[8:14], p.SenderMAC[:])
	copy(a[14:18], sender[:])
	copy(a[18:24], p.TargetMAC[:])
	copy(a[24:28], target[:])
	return b
}

// ParseARP reads an Ethernet frame.
func ParseARP(frame []byte) (ARP, error) {
	if len(frame) < etherHeader+ARPSize || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_ARP {
		return ARP{}, errNotARP
	}
	a := frame[etherHeader:]
	if binary.BigEndian.Uint16(a[0:]) != 1 || binary.BigEndian.Uint16(a[2:]) != unix.ETH_P_IP || a[4] != 6 || a[5] != 4 {
		return ARP{}, errNotARP
	}
	return ARP{
		Op:        binary.BigEndian.Uint16(a[6:]),
		SenderMAC: ether.MAC(a[8:14]),
		SenderIP:  netip.AddrFrom4([4]byte(a[14:18])),
		TargetMAC: ether.MAC(a[18:24]),
		TargetIP:  netip.AddrFrom4([4]byte(a[24:28])),
	}, nil
}

// ConflictsWhileProbing reports whether p means that somebody other than us has ip, or is
// about to take it at this very moment (RFC 5227 section 2.1.1).
func (p ARP) ConflictsWhileProbing(ip netip.Addr, us ether.MAC) bool {
	probing := p.SenderMAC != us && p.Op == ARPRequest && p.SenderIP.IsUnspecified() && p.TargetIP == ip
	return p.Conflicts(ip, us) || probing
}

// Conflicts reports whether p means that somebody other than us has ip, which is
// ours (RFC 5227 section 2.4). One who only asks gets the kernel's answer.
func (p ARP) Conflicts(ip netip.Addr, us ether.MAC) bool {
	return p.SenderMAC != us && p.SenderIP == ip
}
