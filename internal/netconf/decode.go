package netconf

import (
	"bytes"
	"errors"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Where the parts of a DHCP message begin, in bytes (RFC 2131 section 2). The
// options follow the magic cookie.
const (
	serverNameAt = 44
	bootFileAt   = 108
	cookieAt     = 236
	optionsAt    = 240
)

// Options that say how the others are to be read (RFC 2132 sections 3.1, 3.2
// and 9.3).
const (
	optionPad      = 0
	optionOverload = 52
	optionEnd      = 255
)

var errNotDHCP = errors.New("not a DHCP message")

// readMessage reads a DHCP message as servers write them: with no END after the
// options, with options in the fields for the server's name and the boot file
// (option 52), or cut short by a relay, in which case cut is true and the
// options before the cut count. The message shares no memory with b.
func readMessage(b []byte) (m *dhcpv4.DHCPv4, cut bool, err error) {
	if len(b) < optionsAt {
		return nil, false, errNotDHCP
	}
	m, err = dhcpv4.FromBytes(append(bytes.Clone(b[:optionsAt]), optionEnd))
	if err != nil {
		return nil, false, err
	}
	whole := readOptions(m.Options, b[optionsAt:])
	overload := m.Options.Get(dhcpv4.GenericOptionCode(optionOverload))
	if len(overload) != 1 {
		return m, !whole, nil
	}
	// RFC 3396 section 5: first the boot file's field, then the server name's.
	if overload[0]&1 != 0 {
		m.BootFileName = ""
		whole = readOptions(m.Options, b[bootFileAt:cookieAt]) && whole
	}
	if overload[0]&2 != 0 {
		m.ServerHostName = ""
		whole = readOptions(m.Options, b[serverNameAt:bootFileAt]) && whole
	}
	return m, !whole, nil
}

// readOptions adds the options in b to the others, up to END or to where b
// stops. It reports false when b stops in the middle of one, which does not
// count. One that comes twice is one long option (RFC 3396).
func readOptions(to dhcpv4.Options, b []byte) (whole bool) {
	for len(b) > 0 {
		code := b[0]
		if code == optionEnd {
			return true
		}
		if b = b[1:]; code == optionPad {
			continue
		}
		if len(b) == 0 || int(b[0]) > len(b)-1 {
			return false
		}
		value := b[1 : 1+int(b[0])]
		to[code] = append(to[code], value...)
		b = b[1+len(value):]
	}
	return true
}
