package operator

import (
	"fmt"
	"net/netip"
	"strings"

	"viver.lan/internal/ether"
	"viver.lan/internal/hostname"
)

// Machine is what the operator has set for one machine. A field is zero where
// nothing is set, or where an override was taken back.
type Machine struct {
	Name    string     // see hostname.Check
	Address netip.Addr // see ParseAddress
}

// Machines returns what overrides set for machines. A value that no machine can use
// is left out and reported: the owner's signature does not prove that the program
// which wrote the override checked it.
func Machines(overrides []Override) (map[ether.MAC]Machine, []error) {
	all := make(map[ether.MAC]Machine)
	var invalid []error
	for _, e := range overrides {
		if e.Value == "" {
			continue
		}
		kind, text, _ := strings.Cut(e.Key, "/")
		mac, err := ether.ParseMAC(text)
		if err != nil {
			continue // it is about something else
		}
		m := all[mac]
		switch kind + "/" {
		case namePrefix:
			m.Name, err = e.Value, hostname.Check(e.Value)
		case addressPrefix:
			m.Address, err = ParseAddress(e.Value)
		default:
			continue
		}
		if err != nil {
			invalid = append(invalid, fmt.Errorf("override %s: %w", e.Key, err))
			continue
		}
		all[mac] = m
	}
	return all, invalid
}

// ParseAddress reads the address of a machine.
func ParseAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return netip.Addr{}, fmt.Errorf("%q is no address of a machine: want IPv4, such as 10.0.0.7", s)
	}
	return a, nil
}
