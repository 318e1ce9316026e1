package netconnect

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/ether"
	"viver.lan/internal/hostname"
	"viver.lan/internal/klog"
)

// IPArgument is the kernel argument ip= as the kernel documents it
// (Documentation/admin-guide/nfs/nfsroot.rst):
//
//	ip=<client>:<server>:<gateway>:<netmask>:<hostname>:<device>:<autoconf>:<dns0>:<dns1>[:<ntp0>]
//
// or only an autoconf word, such as ip=dhcp; and as dracut does
// (dracut.cmdline(7)):
//
//	ip=<device>:<autoconf>[:<mtu>]
//	ip=<client>:<server>:<gateway>:<netmask>:<hostname>:<device>:<autoconf>:<mtu>
//
// The zero value means that the argument was not given.
type IPArgument struct {
	// Address is invalid when it is to be had by DHCP.
	Address  netip.Prefix
	Server   netip.Addr
	Router   netip.Addr
	Hostname string
	Device   string // the link's name; empty: any
	DNS      []netip.Addr
	MTU      int // bytes, 0: not given
	// Off is true for ip=off and ip=none: leave the network alone.
	Off bool
}

// static reports whether the argument gives the address itself. As in the
// kernel, a given address wins over the autoconf field.
func (a IPArgument) static() bool { return a.Address.IsValid() }

// lease returns the static address as a lease that never expires.
func (a IPArgument) lease() bootnet.Lease {
	return a.override(bootnet.Lease{Source: bootnet.SourceStatic, Address: a.Address, Hostname: a.Hostname, Obtained: klog.Uptime()})
}

// override returns the lease with what the argument says beside the address: as in
// the kernel, that wins over what a server says.
func (a IPArgument) override(l bootnet.Lease) bootnet.Lease {
	if a.Router.IsValid() {
		l.Router = a.Router
	}
	if len(a.DNS) > 0 {
		l.DNS = slices.Clone(a.DNS)
	}
	if a.Server.IsValid() {
		l.BootHost = a.Server
	}
	l.MTU = cmp.Or(a.MTU, l.MTU)
	return l
}

// ParseIP reads the value of ip=.
func ParseIP(value string) (IPArgument, error) {
	fail := func(format string, args ...any) (IPArgument, error) {
		return IPArgument{}, fmt.Errorf("ip=%s: %s", value, fmt.Sprintf(format, args...))
	}
	if strings.Contains(value, "[") {
		return fail("IPv6 is not supported here, give an IPv4 address or leave ip= out for DHCP")
	}
	fields := strings.Split(value, ":")
	if len(fields) == 1 && !strings.Contains(value, ".") {
		a := IPArgument{}
		if err := a.autoconf(value); err != nil {
			return fail("%v", err)
		}
		return a, nil
	}
	if _, err := parseField(fields[0]); err != nil && len(fields) > 1 && len(fields) <= 3 {
		// dracut's short form, rewritten into the long one.
		fields = append([]string{"", "", "", "", "", fields[0], fields[1]}, fields[2:]...)
	}
	if len(fields) > 10 {
		return fail("%d fields, at most 10 are known", len(fields))
	}
	fields = append(fields, make([]string, 10-len(fields))...)

	var a IPArgument
	if mtu, err := strconv.Atoi(fields[7]); err == nil { // dracut's, where the kernel has a name server
		if mtu < bootnet.MinMTU || mtu > bootnet.MaxMTU {
			return fail("an MTU of %d, want %d to %d", mtu, bootnet.MinMTU, bootnet.MaxMTU)
		}
		a.MTU, fields[7] = mtu, ""
	}
	var client netip.Addr
	var dns [2]netip.Addr
	for _, f := range []struct {
		what string
		text string
		to   *netip.Addr
	}{
		{"client address", fields[0], &client},
		{"server", fields[1], &a.Server},
		{"gateway", fields[2], &a.Router},
		{"first name server", fields[7], &dns[0]},
		{"second name server", fields[8], &dns[1]},
	} {
		var err error
		if *f.to, err = parseField(f.text); err != nil {
			return fail("%s: %v", f.what, err)
		}
	}
	for _, d := range dns {
		if d.IsValid() {
			a.DNS = append(a.DNS, d)
		}
	}
	if a.Hostname = fields[4]; a.Hostname != "" && hostname.CheckDomain(a.Hostname) != nil {
		return fail("%q is no host name", fields[4])
	}
	if a.Device = fields[5]; len(a.Device) > 15 || strings.ContainsAny(a.Device, "/ \t\n") {
		return fail("%q is no device name", a.Device)
	}
	if err := a.autoconf(fields[6]); err != nil {
		return fail("%v", err)
	}
	if client.IsValid() && !bootnet.Usable(client) {
		return fail("%s is no address for a machine", client)
	}
	if client.IsValid() {
		bits, err := parseMask(fields[3], client)
		if err != nil {
			return fail("netmask: %v", err)
		}
		a.Address = netip.PrefixFrom(client, bits)
		a.Off = false
	} else if fields[3] != "" {
		return fail("a netmask but no client address")
	}
	return a, nil
}

// autoconf reads the kernel's words. Those for protocols that nobody speaks
// any more mean DHCP, as all of them mean "ask the network".
func (a *IPArgument) autoconf(word string) error {
	switch word {
	case "", "on", "any", "dhcp", "both", "bootp", "rarp", "single-dhcp":
	case "off", "none":
		a.Off = true
	default:
		return fmt.Errorf("%q is none of dhcp, on, any, both, bootp, rarp, off, none", word)
	}
	return nil
}

// parseField reads an IPv4 address; as in the kernel an empty field and
// 0.0.0.0 both mean "not given".
func parseField(s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() {
		return netip.Addr{}, fmt.Errorf("%q is no IPv4 address", s)
	}
	if a.IsUnspecified() {
		return netip.Addr{}, nil
	}
	return a, nil
}

// parseMask reads 255.255.255.0 or 24; without one the address's class
// decides, as in the kernel.
func parseMask(s string, client netip.Addr) (int, error) {
	if s == "" {
		bits, ok := bootnet.ClassBits(client)
		if !ok {
			return 0, fmt.Errorf("none given, and %s belongs to no class that has one", client)
		}
		return bits, nil
	}
	if bits, err := strconv.Atoi(s); err == nil {
		if bits < 1 || bits > 32 {
			return 0, fmt.Errorf("%d is not between 1 and 32", bits)
		}
		return bits, nil
	}
	mask, err := netip.ParseAddr(s)
	if err != nil || !mask.Is4() {
		return 0, fmt.Errorf("%q is no netmask", s)
	}
	bits, ok := bootnet.MaskBits(mask.AsSlice())
	if !ok {
		return 0, fmt.Errorf("%q is no netmask", s)
	}
	return bits, nil
}

// ParseBootIF reads the value of the kernel argument BOOTIF. PXELINUX and GRUB
// put the ARP hardware type (01, Ethernet) before the address, iPXE need not:
// both 01-52-54-00-12-34-56 and 52:54:00:12:34:56 are understood.
func ParseBootIF(s string) (ether.MAC, error) {
	address := strings.ReplaceAll(strings.TrimSpace(s), "-", ":")
	if strings.Count(address, ":") == 6 {
		kind, rest, _ := strings.Cut(address, ":")
		if kind != "01" {
			return ether.MAC{}, fmt.Errorf("BOOTIF=%s: hardware type %q, only 01 (Ethernet) is supported", s, kind)
		}
		address = rest
	}
	mac, err := ether.ParseMAC(address)
	if err != nil {
		return ether.MAC{}, fmt.Errorf("BOOTIF=%s: want 01-aa-bb-cc-dd-ee-ff or aa:bb:cc:dd:ee:ff", s)
	}
	return mac, nil
}
