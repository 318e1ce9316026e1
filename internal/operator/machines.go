package operator

import (
	"fmt"
	"net/netip"
	"strings"

	"viver.lan/internal/ether"
	"viver.lan/internal/hostname"
)

// Machine is what the operator said of one machine. A field is zero where
// nothing was said, or was taken back.
type Machine struct {
	Name    string     // see hostname.Check
	Address netip.Addr // see ParseAddress
}

// Machines returns what the entries say of machines. A value that no machine can
// use is left out and reported: that the owner signed an entry says nothing about
// the program that wrote it.
func Machines(entries []Entry) (map[ether.MAC]Machine, []error) {
	all := make(map[ether.MAC]Machine)
	var wrong []error
	for _, e := range entries {
		if e.Value == "" {
			continue
		}
		kind, text, _ := strings.Cut(e.Key, "/")
		mac, err := ether.ParseMAC(text)
		if err != nil {
			continue // it is of something else
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
			wrong = append(wrong, fmt.Errorf("entry %s: %w", e.Key, err))
			continue
		}
		all[mac] = m
	}
	return all, wrong
}

// ParseAddress reads the address of a machine.
func ParseAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return netip.Addr{}, fmt.Errorf("%q is no address of a machine: want IPv4, such as 10.0.0.7", s)
	}
	return a, nil
}
