package dhcpclient

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/hostname"
)

// minLease bounds how often a server can make us renew: each two seconds.
const minLease = 4 * time.Second

// errNoAddress marks the answer of a server that gives no address, such as a
// proxyDHCP server's.
var errNoAddress = errors.New("carries no usable address")

// leaseFrom reads an ACK or an OFFER. It takes what a machine can live with;
// defects says what was wrong with it.
func leaseFrom(r reply, obtained time.Duration) (bootnet.Lease, error) {
	m := r.message
	address := bootnet.Addr(m.YourIPAddr)
	if !bootnet.Usable(address) {
		return bootnet.Lease{}, fmt.Errorf("the answer of %s %w", r.server(), errNoAddress)
	}
	bits, ok := r.maskBits()
	if !ok {
		return bootnet.Lease{}, fmt.Errorf("the answer of %s carries no usable subnet mask, and %s belongs to no class that has one", r.server(), address)
	}
	if p := netip.PrefixFrom(address, bits); bits < 31 && (p.Masked().Addr() == address || lastOf(p) == address) {
		return bootnet.Lease{}, fmt.Errorf("the answer of %s gives %s, which is the address of a whole network", r.server(), p)
	}
	l := bootnet.Lease{
		Source:    bootnet.SourceDHCP,
		Address:   netip.PrefixFrom(address, bits),
		DNS:       addrs4(m.DNS()),
		NTP:       addrs4(m.NTPServers()),
		Server:    r.server(),
		ServerMAC: r.from,
		BootHost:  bootnet.Addr(m.ServerIPAddr),
		Domain:    safeName(m.DomainName()),
		Hostname:  safeName(m.HostName()),
		Viver:     r.fromViver(),
		Obtained:  obtained,
	}
	setRouters(&l, m)
	if l.BootHost.IsUnspecified() {
		l.BootHost = netip.Addr{}
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, m.Options); err == nil && mtu >= bootnet.MinMTU {
		l.MTU = min(int(mtu), bootnet.MaxMTU)
	}
	setTimes(&l, m)
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

// maskBits returns the length of the network's prefix: what the server says, or
// what the address's class says where it says nothing usable.
func (r reply) maskBits() (bits int, ok bool) {
	if bits, ok = bootnet.MaskBits(r.message.SubnetMask()); ok {
		return bits, true
	}
	return bootnet.ClassBits(bootnet.Addr(r.message.YourIPAddr))
}

// defects says what of an answer that leaseFrom takes was missing or could not
// be used.
func (r reply) defects() (list []string) {
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	m := r.message
	if _, ok := bootnet.MaskBits(m.SubnetMask()); !ok {
		bits, _ := r.maskBits()
		add("no usable subnet mask (option 1), so the address's class decides: /%d", bits)
	}
	if !m.Options.Has(dhcpv4.OptionServerIdentifier) {
		add("no server identifier (option 54), the sender's address is taken for it")
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, m.Options); err == nil && (mtu < bootnet.MinMTU || mtu > bootnet.MaxMTU) {
		add("an MTU of %d (option 26), not between %d and %d", mtu, bootnet.MinMTU, bootnet.MaxMTU)
	}
	if _, _, err := classlessRoutes(m); err != nil {
		add("unreadable routes: %v", err)
	}
	if t := m.IPAddressLeaseTime(0); t > 0 && t < minLease {
		add("a lease of %s (option 51), counted as %s", t, minLease)
	}
	return list
}

// setTimes reads options 51, 58 and 59; RFC 2131 section 4.4.5 gives what a
// server leaves out.
func setTimes(l *bootnet.Lease, m *dhcpv4.DHCPv4) {
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

func addrs4(ips []net.IP) []netip.Addr {
	var list []netip.Addr
	for _, ip := range ips {
		if a := bootnet.Addr(ip); a.IsValid() && !a.IsUnspecified() && !slices.Contains(list, a) {
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
