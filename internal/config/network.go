package config

import (
	"fmt"
	"net/netip"
	"strings"

	"viver.lan/internal/cmdline"
	"viver.lan/internal/ether"
)

func setPool(s *Settings, v any) error {
	str, ok := v.(string)
	if !ok {
		return wrongType("a string", v)
	}
	p, err := netip.ParsePrefix(str)
	switch {
	case err != nil:
		return fmt.Errorf("%q is no address range, want e.g. \"10.77.0.0/16\"", str)
	case !p.Addr().Is4() || p.Bits() > 28 || p.Bits() < 8:
		return fmt.Errorf("%q must be an IPv4 range between /8 and /28", str)
	case !p.Addr().IsPrivate():
		return fmt.Errorf("%q is not a private range (RFC 1918)", str)
	}
	s.Pool = p.Masked()
	return nil
}

// checkInterface takes a MAC address or what Linux takes for the name of a link.
func checkInterface(s string) error {
	if s == "" {
		return nil
	}
	if _, err := ether.ParseMAC(s); err == nil {
		return nil
	}
	const longest = 15 // IFNAMSIZ without its NUL
	if len(s) > longest || s == "." || s == ".." || strings.ContainsAny(s, "/: \t\n") || !cmdline.Plain(s) {
		return fmt.Errorf("%q is neither the name of a network card nor its MAC address", s)
	}
	return nil
}

func setRouter(s *Settings, v any) error {
	str, ok := v.(string)
	if !ok {
		return wrongType("a string", v)
	}
	if str == "" {
		s.Router = netip.Addr{}
		return nil
	}
	a, err := machineAddress(str)
	if err == nil {
		s.Router = a
	}
	return err
}

func setDNS(s *Settings, v any) error {
	items, ok := v.([]string)
	if !ok {
		return wrongType("a list of strings", v)
	}
	const most = 3 // resolv.conf(5) reads no more
	if len(items) > most {
		return fmt.Errorf("%d name servers, at most %d are asked", len(items), most)
	}
	var servers []netip.Addr
	for _, item := range items {
		a, err := machineAddress(item)
		if err != nil {
			return err
		}
		servers = append(servers, a)
	}
	s.DNS = servers
	return nil
}

// machineAddress reads the address of another machine.
func machineAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return netip.Addr{}, fmt.Errorf("%q is no IPv4 address of a machine", s)
	}
	return a, nil
}

func addresses(list ...netip.Addr) string {
	var words []string
	for _, a := range list {
		if a.IsValid() {
			words = append(words, a.String())
		}
	}
	return strings.Join(words, ", ")
}
