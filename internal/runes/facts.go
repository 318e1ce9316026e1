package runes

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"viver.lan/internal/ether"
	"viver.lan/internal/hostname"
	"viver.lan/internal/roles"
)

// Facts are what a rune may know about the machine. An empty value means that
// the boot did not find it out, or that the settings leave it out. Every field
// is a template variable, a name for `when = { facts = […] }`, and, if it is no
// list, a variable of the hooks' environment (Hostname is VIVER_HOSTNAME).
type Facts struct {
	// Hostname is the machine's name without a domain.
	Hostname string
	// MachineID is the machine's identity in the form of machine-id(5).
	MachineID string
	// Domain is the network's DNS domain.
	Domain string
	// FirstNode is true on the machine with the medium.
	FirstNode bool
	// Interface is the boot NIC as the kernel named it, MAC its address.
	Interface string
	MAC       ether.MAC
	// Address is the boot NIC's IPv4 address, PrefixLength and Netmask its
	// network's size in both notations, Gateway the default route.
	Address      string
	PrefixLength int
	Netmask      string
	Gateway      string
	// DNS are the name servers' addresses.
	DNS []string
	// NTP are the time servers' addresses.
	NTP []string
	// GraphicsDriver is the kernel's DRM driver of the card that shows the
	// console, e.g. "i915"; empty where no driver claimed a card.
	GraphicsDriver string
	// GraphicsBus is that card as Xorg's BusID writes it, e.g. "PCI:0:2:0".
	GraphicsBus string
	// Framebuffer is true when /dev/fb0 exists.
	Framebuffer bool
	// AuthorizedKeys are the public keys that may log in as root
	// (ssh.authorized-keys).
	AuthorizedKeys []string
	// ConsoleLogin asks for a root shell on the console without a password
	// (console.login).
	ConsoleLogin bool
	// FirewallOpen asks for VIVER's ports to be kept open (firewall.open).
	FirewallOpen bool
	// HostKey is an SSH host key, made for this boot, in OpenSSH's format: the lines
	// of its private half. HostKeyPublic is the other half.
	HostKey       []string
	HostKeyPublic string
	// SerialConsoles are the kernel's serial consoles, e.g. "ttyS0".
	SerialConsoles []string
	// Init is what process 1 will really be: an initsystem.Kind.
	Init string
	// Network is the network's name.
	Network string
	// Labels are the operator's words for this machine, Roles the roles that it holds,
	// e.g. "compile/scheduler".
	Labels []string
	Roles  []string
	// Members are the machines of the network that are up, this one among them, by
	// hostname. Before the distribution's init starts it is this one only.
	Members []MemberFact
	// Unconfirmed are the addresses of machines that are up, but whose name or address
	// another one had minutes ago: most likely the same machine, started again.
	Unconfirmed []string
	// Left are the IDs of the machines that have left the network on purpose, in the last
	// day. One that comes back without saved data does so with another ID.
	Left []string
}

// MemberFact is what a rune may know of a machine of its network.
type MemberFact struct {
	ID       string // of the node
	Hostname string
	Address  string
	MAC      ether.MAC
	First    bool     // it has the medium
	HostKey  string   // its SSH host key, "" for none
	CPUs     int      // 0 when it has not said
	Memory   int      // MiB; 0 when it has not said
	Roles    []string // that it holds
}

// Checked returns the facts without those that are unsafe in a file: what a foreign
// DHCP server sends may be anything. Each one left out is reported.
// Apply does this itself.
func (f Facts) Checked() (Facts, []error) {
	var errs []error
	drop := func(field *string, name string, ok func(string) bool, want string) {
		if *field != "" && !ok(*field) {
			errs = append(errs, fmt.Errorf("fact %s is %q, want %s: left out", name, *field, want))
			*field = ""
		}
	}
	keep := func(list []string, name string, ok func(string) bool, want string) []string {
		var kept []string
		for _, s := range list {
			drop(&s, name, ok, want)
			if s != "" {
				kept = append(kept, s)
			}
		}
		return kept
	}
	drop(&f.Hostname, "Hostname", isHostname, "letters, digits and dashes, at most 63")
	drop(&f.MachineID, "MachineID", isMachineID, "32 lower-case hexadecimal digits")
	drop(&f.Domain, "Domain", isDomain, "a domain name")
	drop(&f.Interface, "Interface", isWord, "an interface name")
	drop(&f.Address, "Address", isAddress, "an IP address")
	drop(&f.Netmask, "Netmask", isAddress, "a netmask such as 255.255.0.0")
	drop(&f.Gateway, "Gateway", isAddress, "an IP address")
	drop(&f.GraphicsDriver, "GraphicsDriver", isWord, "a driver's name")
	drop(&f.GraphicsBus, "GraphicsBus", isWord, "a bus address such as PCI:0:2:0")
	f.DNS = keep(f.DNS, "DNS", isAddress, "an IP address")
	f.NTP = keep(f.NTP, "NTP", isAddress, "an IP address")
	f.AuthorizedKeys = keep(f.AuthorizedKeys, "AuthorizedKeys", isLine, "one line")
	f.HostKey = keep(f.HostKey, "HostKey", isLine, "one line")
	drop(&f.HostKeyPublic, "HostKeyPublic", isLine, "one line")
	f.SerialConsoles = keep(f.SerialConsoles, "SerialConsoles", isWord, "a device's name")
	drop(&f.Init, "Init", isWord, "a service manager's name")
	drop(&f.Network, "Network", isWord, "a network's name")
	f.Labels = keep(f.Labels, "Labels", isWord, "a word")
	f.Roles = keep(f.Roles, "Roles", isRoleName, "a role such as compile/scheduler")
	var members []MemberFact
	for _, m := range f.Members {
		if !isHostname(m.Hostname) || !isAddress(m.Address) || !isLine(m.HostKey) || !isWord(m.ID) || slices.ContainsFunc(m.Roles, func(r string) bool { return !isRoleName(r) }) {
			errs = append(errs, fmt.Errorf("member %q at %q has a name, an ID, an address or a role that no machine has: left out", m.Hostname, m.Address))
			continue
		}
		members = append(members, m)
	}
	f.Members = members
	f.Unconfirmed = keep(f.Unconfirmed, "Unconfirmed", isAddress, "an IP address")
	f.Left = keep(f.Left, "Left", isWord, "a node's ID")
	if f.PrefixLength < 0 || f.PrefixLength > 128 {
		errs = append(errs, fmt.Errorf("fact PrefixLength is %d, want 0 to 128: left out", f.PrefixLength))
		f.PrefixLength = 0
	}
	return f, errs
}

func isHostname(s string) bool { return hostname.Check(s) == nil }

func isMachineID(s string) bool { return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == "" }

func isDomain(s string) bool { return hostname.CheckDomain(strings.TrimSuffix(s, ".")) == nil }

func isWord(s string) bool { return len(s) <= 64 && isMadeOf(s, "-_.:@") }

func isRoleName(s string) bool {
	_, err := roles.ParseName(s)
	return err == nil
}

func isMadeOf(s, others string) bool {
	for _, c := range s {
		if c > unicode.MaxASCII || !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune(others, c) {
			return false
		}
	}
	return true
}

func isAddress(s string) bool {
	a, err := netip.ParseAddr(s)
	return err == nil && a.Zone() == ""
}

func isLine(s string) bool { return strings.IndexFunc(s, unicode.IsControl) < 0 }

func factNames() []string {
	t := reflect.TypeFor[Facts]()
	list := make([]string, t.NumField())
	for i := range list {
		list[i] = t.Field(i).Name
	}
	return list
}

func knownFact(name string) bool {
	_, ok := reflect.TypeFor[Facts]().FieldByName(name)
	return ok
}

// known reports whether the fact has a value.
func (f Facts) known(name string) bool {
	v := reflect.ValueOf(f).FieldByName(name)
	if v.Kind() == reflect.Slice {
		return v.Len() > 0
	}
	return !v.IsZero()
}

// environment returns the facts and the bundle's settings for a hook.
func (b Bundle) environment(f Facts) []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8"}
	v := reflect.ValueOf(f)
	for i, name := range factNames() {
		if v.Field(i).Kind() != reflect.Slice {
			env = append(env, fmt.Sprintf("%s=%v", variable(name), v.Field(i)))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(b.values)) {
		env = append(env, fmt.Sprintf("%s=%s", variable("setting_"+strings.ReplaceAll(key, "-", "_")), b.values[key]))
	}
	return append(env, "VIVER_ROLES="+strings.Join(f.Roles, " "), "VIVER_LABELS="+strings.Join(f.Labels, " "))
}

// holders are the members that hold a role; one of the bundle's own may be named without
// the bundle's name.
func (s scope) holders(name string) ([]MemberFact, error) {
	name, err := s.roleName(name)
	if err != nil {
		return nil, err
	}
	var list []MemberFact
	for _, m := range s.facts.Members {
		if slices.Contains(m.Roles, name) {
			list = append(list, m)
		}
	}
	return list, nil
}

// holder is the first of them, or nil, which "with" takes for nothing.
func (s scope) holder(name string) (*MemberFact, error) {
	list, err := s.holders(name)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

// holds reports whether this machine holds the role.
func (s scope) holds(name string) (bool, error) {
	name, err := s.roleName(name)
	return err == nil && slices.Contains(s.facts.Roles, name), err
}

func (s scope) roleName(name string) (string, error) {
	if !strings.Contains(name, "/") {
		name = s.b.Name + "/" + name
	}
	_, err := roles.ParseName(name)
	return name, err
}

// variable is the name of a fact in a hook's environment.
func variable(fact string) string { return "VIVER_" + strings.ToUpper(fact) }

// joinReasons makes one sentence of several.
func joinReasons(errs []error) string {
	return strings.ReplaceAll(errors.Join(errs...).Error(), "\n", "; ")
}
