package netconf

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/ether"
	"viver.lan/internal/hostname"
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

// ResolvConf returns the content of a resolv.conf(5) for the lease. Without a
// name server it is a comment only.
func (l Lease) ResolvConf() []byte {
	var b bytes.Buffer
	b.WriteString("# Written by VIVER from the lease of the boot network.\n")
	if l.Domain != "" {
		fmt.Fprintf(&b, "search %s\n", l.Domain)
	}
	for _, server := range l.DNS {
		fmt.Fprintf(&b, "nameserver %s\n", server)
	}
	return b.Bytes()
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

// minLease bounds how often a server can make us renew: each two seconds.
const minLease = 4 * time.Second

// Bounds of an MTU that a server may set, in bytes: every host takes a datagram
// of 576 (RFC 1122 section 3.3.3), and no Ethernet card carries more than a
// jumbo frame.
const (
	minMTU = 576
	maxMTU = 9216
)

// errNoAddress marks the answer of a server that gives no address, such as a
// proxyDHCP server's.
var errNoAddress = errors.New("carries no usable address")

// leaseFrom reads an ACK or an OFFER. It takes what a machine can live with;
// oddities says what was wrong with it.
func leaseFrom(r reply, obtained time.Duration) (Lease, error) {
	m := r.message
	address := addr4(m.YourIPAddr)
	if !usable(address) {
		return Lease{}, fmt.Errorf("the answer of %s %w", r.server(), errNoAddress)
	}
	bits, ok := r.maskBits()
	if !ok {
		return Lease{}, fmt.Errorf("the answer of %s carries no usable subnet mask, and %s belongs to no class that has one", r.server(), address)
	}
	if p := netip.PrefixFrom(address, bits); bits < 31 && (p.Masked().Addr() == address || lastOf(p) == address) {
		return Lease{}, fmt.Errorf("the answer of %s gives %s, which is the address of a whole network", r.server(), p)
	}
	l := Lease{
		Source:    SourceDHCP,
		Address:   netip.PrefixFrom(address, bits),
		DNS:       addrs4(m.DNS()),
		Server:    r.server(),
		ServerMAC: r.from,
		BootHost:  addr4(m.ServerIPAddr),
		Domain:    safeName(m.DomainName()),
		Hostname:  safeName(m.HostName()),
		Viver:     r.marked(),
		Obtained:  obtained,
	}
	l.setRouters(m)
	if l.BootHost.IsUnspecified() {
		l.BootHost = netip.Addr{}
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, m.Options); err == nil && mtu >= minMTU {
		l.MTU = min(int(mtu), maxMTU)
	}
	l.setTimes(m)
	return l, nil
}

// lastOf returns the last address of a network, which is its broadcast address.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for i := range b {
		b[i] |= byte(uint64(0xffffffff) >> p.Bits() >> (24 - 8*i))
	}
	return netip.AddrFrom4(b)
}

// usable reports whether a machine can have the address.
func usable(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// maskBits returns the length of the network's prefix: the server's word, or
// what the address's class says where that is none.
func (r reply) maskBits() (bits int, ok bool) {
	if bits, ok = maskBits(r.message.SubnetMask()); ok {
		return bits, true
	}
	return classBits(addr4(r.message.YourIPAddr))
}

// oddities says what of an answer that leaseFrom takes was missing or could not
// be used.
func (r reply) oddities() (odd []string) {
	say := func(format string, args ...any) { odd = append(odd, fmt.Sprintf(format, args...)) }
	m := r.message
	if _, ok := maskBits(m.SubnetMask()); !ok {
		bits, _ := r.maskBits()
		say("no usable subnet mask (option 1), so the address's class decides: /%d", bits)
	}
	if !m.Options.Has(dhcpv4.OptionServerIdentifier) {
		say("no server identifier (option 54), the sender's address is taken for it")
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, m.Options); err == nil && (mtu < minMTU || mtu > maxMTU) {
		say("an MTU of %d (option 26), not between %d and %d", mtu, minMTU, maxMTU)
	}
	if _, _, err := classlessRoutes(m); err != nil {
		say("unreadable routes: %v", err)
	}
	if t := m.IPAddressLeaseTime(0); t > 0 && t < minLease {
		say("a lease of %s (option 51), counted as %s", t, minLease)
	}
	return odd
}

// setTimes reads options 51, 58 and 59; RFC 2131 section 4.4.5 gives what a
// server leaves out.
func (l *Lease) setTimes(m *dhcpv4.DHCPv4) {
	const infinite = 0xffffffff * time.Second
	expires := m.IPAddressLeaseTime(0)
	if expires == 0 || expires == infinite {
		return
	}
	l.Expires = max(expires, minLease)
	l.Renew, l.Rebind = m.IPAddressRenewalTime(0), m.IPAddressRebindingTime(0)
	if l.Renew <= 0 || l.Rebind <= l.Renew || l.Expires <= l.Rebind {
		l.Renew, l.Rebind = l.Expires/2, l.Expires/8*7
	}
}

// maskBits returns the length of a netmask.
func maskBits(mask net.IPMask) (int, bool) {
	ones, size := mask.Size() // 0, 0 when it has holes or is absent
	return ones, size == 32 && ones > 0
}

// classBits returns the length of the prefix that the address's class had
// before there were masks (RFC 791), which is what the kernel's ip= does too.
func classBits(a netip.Addr) (bits int, ok bool) {
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

func addr4(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip.To4())
	return a
}

func addrs4(ips []net.IP) []netip.Addr {
	var list []netip.Addr
	for _, ip := range ips {
		if a := addr4(ip); a.IsValid() && !a.IsUnspecified() && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

// safeName returns a host or domain name from the network, or "" when it is none:
// it may hold what means something to a file or a shell.
func safeName(s string) string {
	s = strings.TrimRight(s, "\x00.")
	if hostname.CheckDomain(s) != nil {
		return ""
	}
	return s
}
