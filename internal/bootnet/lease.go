package bootnet

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"viver.lan/internal/ether"
)

// Source says where an address came from.
type Source string

// The sources of an address.
const (
	SourceDHCP   Source = "dhcp"
	SourceStatic Source = "static" // the kernel argument ip=
	SourceSelf   Source = "self"   // chosen by ourselves on an empty network
)

// Lease is an address and what came with it. It travels as JSON from the
// initramfs to the block daemon.
type Lease struct {
	Source  Source       `json:"source"`
	Address netip.Prefix `json:"address"` // our address with the length of its network's prefix
	// Router is where the default route leads; Routes are the other ways.
	Router netip.Addr   `json:"router,omitzero"`
	Routes []Route      `json:"routes,omitempty"`
	DNS    []netip.Addr `json:"dns,omitempty"`
	NTP    []netip.Addr `json:"ntp,omitempty"`
	// Server is the DHCP server's identifier (option 54); ServerMAC is the
	// Ethernet address its answer came from, which is a relay's where there is
	// one.
	Server    netip.Addr `json:"server,omitzero"`
	ServerMAC ether.MAC  `json:"server_mac,omitzero"`
	// BootHost is the next server (siaddr) of the answer.
	BootHost netip.Addr `json:"boot_host,omitzero"`
	Domain   string     `json:"domain,omitempty"`
	Hostname string     `json:"hostname,omitempty"`
	// MTU is in bytes, 0 when nobody set one. Connect leaves what the link
	// was found to carry.
	MTU int `json:"mtu,omitempty"`
	// Viver is true when the answer carried a VIVER boot host's mark.
	Viver bool `json:"viver,omitempty"`

	// Obtained is the time since the kernel started, not a date: it means the
	// same in every process of this boot and no correction of the clock can
	// make a lease older or younger.
	Obtained time.Duration `json:"obtained"`
	// Renew (T1), Rebind (T2) and Expires count from Obtained. All are 0 for
	// an address that never expires.
	Renew   time.Duration `json:"renew"`
	Rebind  time.Duration `json:"rebind"`
	Expires time.Duration `json:"expires"`
}

// String is a sentence for people.
func (l Lease) String() string {
	switch {
	case l.Source == SourceDHCP && l.Viver:
		return fmt.Sprintf("%s from the VIVER boot host %s", l.Address, l.Server)
	case l.Source == SourceDHCP:
		return fmt.Sprintf("%s from the DHCP server %s", l.Address, l.Server)
	case l.Source == SourceStatic:
		return fmt.Sprintf("%s from the kernel command line", l.Address)
	default:
		return fmt.Sprintf("%s, chosen by ourselves", l.Address)
	}
}

// Bounds of an MTU that a server may set, in bytes: every host takes a datagram
// of 576 (RFC 1122 section 3.3.3), and no Ethernet card carries more than a
// jumbo frame.
const (
	MinMTU = 576
	MaxMTU = 9216
)

// Usable reports whether a machine can have the address.
func Usable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// ClassBits returns the length of the prefix that the address's class had
// before there were masks (RFC 791), which is what the kernel's ip= does too.
func ClassBits(a netip.Addr) (bits int, ok bool) {
	if !a.Is4() {
		return 0, false
	}
	switch first := a.As4()[0]; {
	case first < 128:
		return 8, true
	case first < 192:
		return 16, true
	case first < 224:
		return 24, true
	}
	return 0, false
}

// MaskBits returns the length of a netmask.
func MaskBits(mask net.IPMask) (int, bool) {
	ones, size := mask.Size() // 0, 0 when it has holes or is absent
	return ones, size == 32 && ones > 0
}

// Route is a way to a network that came with the lease (RFC 3442).
type Route struct {
	To  netip.Prefix `json:"to"`
	Via netip.Addr   `json:"via,omitzero"` // the router; invalid: To is on the link itself
}

// String is the route as ip(8) writes it.
func (r Route) String() string {
	if !r.Via.IsValid() {
		return r.To.String()
	}
	return fmt.Sprintf("%s via %s", r.To, r.Via)
}

// neighbours are the machines on our own network that the lease names.
func (l Lease) neighbours() (list []netip.Addr) {
	for _, a := range []netip.Addr{l.BootHost, l.Server, l.Router} {
		if a.IsValid() && l.Address.Contains(a) && a != l.Address.Addr() {
			list = append(list, a)
		}
	}
	return list
}
