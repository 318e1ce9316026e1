// Package ether is the address of an Ethernet card: the one name that a machine
// has before it boots, and the only place where its text is read.
//
// It knows no other hardware's addresses, which are longer.
package ether

import (
	"bytes"
	"fmt"
	"net"
)

// MAC is an Ethernet address. The zero MAC means none.
type MAC [6]byte

// ParseMAC reads a MAC in any of the usual notations.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil {
		return MAC{}, err
	}
	return MACOf(hw)
}

// MACOf converts a hardware address, which must be Ethernet's.
func MACOf(hw net.HardwareAddr) (MAC, error) {
	if len(hw) != len(MAC{}) {
		return MAC{}, fmt.Errorf("hardware address %q has %d bytes, Ethernet has %d", hw.String(), len(hw), len(MAC{}))
	}
	return MAC(hw), nil
}

// String returns the colon form, e.g. 52:54:00:12:34:56; "" for the zero MAC.
func (m MAC) String() string {
	if m == (MAC{}) {
		return ""
	}
	return net.HardwareAddr(m[:]).String()
}

// Compare orders MACs by their bytes, which is the order of their texts, too.
func (m MAC) Compare(other MAC) int { return bytes.Compare(m[:], other[:]) }

// MarshalText implements encoding.TextMarshaler; the text is that of String.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (m *MAC) UnmarshalText(text []byte) (err error) {
	*m = MAC{}
	if len(text) > 0 {
		*m, err = ParseMAC(string(text))
	}
	return err
}
