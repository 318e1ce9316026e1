package operator

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"viver.lan/internal/ether"
	"viver.lan/internal/hostname"
)

// Machine is what the operator has set for one machine. A field is zero where
// nothing is set, or where an override was taken back.
type Machine struct {
	Name    string     // see hostname.Check
	Address netip.Addr // see ParseAddress
	Labels  []string   // see ParseLabels
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
		case labelPrefix:
			m.Labels, err = ParseLabels(e.Value)
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

// ParseLabels reads labels with commas between, and returns them in order.
func ParseLabels(s string) (labels []string, err error) {
	const maxLabel, allowed = 32, "abcdefghijklmnopqrstuvwxyz0123456789-"
	for label := range strings.SplitSeq(s, ",") {
		if label == "" || len(label) > maxLabel || strings.Trim(label, allowed) != "" || strings.Trim(label, "-") != label {
			return nil, fmt.Errorf("%q is no label: want up to %d lower-case letters, digits and hyphens, with no hyphen at an end", label, maxLabel)
		}
		labels = append(labels, label)
	}
	slices.Sort(labels)
	return slices.Compact(labels), nil
}

// Pins returns the machines that overrides pin each role to, by RUNE/ROLE. One that
// cannot be read pins nothing, and is reported.
func Pins(overrides []Override) (map[string][]ether.MAC, []error) {
	all := make(map[string][]ether.MAC)
	var invalid []error
	for _, e := range overrides {
		role, ok := strings.CutPrefix(e.Key, rolePrefix)
		if !ok || e.Value == "" {
			continue
		}
		macs, err := parseMACs(e.Value)
		if err != nil {
			invalid = append(invalid, fmt.Errorf("override %s: %w", e.Key, err))
			continue
		}
		all[role] = macs
	}
	return all, invalid
}

// JoinMACs is the text of a list of machines in an override.
func JoinMACs(macs []ether.MAC) string {
	texts := make([]string, len(macs))
	for i, m := range macs {
		texts[i] = m.String()
	}
	return strings.Join(texts, ",")
}

func parseMACs(s string) (macs []ether.MAC, err error) {
	for text := range strings.SplitSeq(s, ",") {
		mac, err := ether.ParseMAC(text)
		if err != nil {
			return nil, err
		}
		macs = append(macs, mac)
	}
	return macs, nil
}

// ParseAddress reads the address of a machine.
func ParseAddress(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || !a.Is4() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return netip.Addr{}, fmt.Errorf("%q is no address of a machine: want IPv4, such as 10.0.0.7", s)
	}
	return a, nil
}
