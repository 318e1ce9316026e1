package dhcp

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// The fixed part of a DHCP packet, in bytes (RFC 2131, section 2).
const (
	snameField   = 44
	snameLength  = 64
	fileField    = 108
	fileLength   = 128
	cookieField  = 236
	optionsField = 240
	magicCookie  = 0x63825363 // RFC 2132, section 2
)

// Options with a meaning for the packet itself (RFC 2132, sections 3 and 9.3).
const (
	optionPad      = 0
	optionOverload = 52
	optionEnd      = 255
)

// MaxOptions bounds what is read of options, in bytes, so that one packet costs
// no more than an Ethernet frame of them; jumbo frames carry none that boot.
const MaxOptions = 1472

var errNotDHCP = errors.New("not a DHCP packet")

// Decode reads a DHCP packet as clients and servers send them, which is not always
// as RFC 2131 wants it: without an END option, cut off inside the last option, or
// with options in the fields for names (option overload). What can be read counts.
// It keeps nothing of packet.
func Decode(packet []byte) (*dhcpv4.DHCPv4, error) {
	if len(packet) < optionsField || binary.BigEndian.Uint32(packet[cookieField:]) != magicCookie {
		return nil, errNotDHCP
	}
	options := whole(packet[optionsField:min(len(packet), optionsField+MaxOptions)])
	plain := append(append(make([]byte, 0, optionsField+len(options)+1), packet[:optionsField]...), options...)
	in := overload(options)
	if in&1 != 0 {
		plain = append(plain, whole(packet[fileField:fileField+fileLength])...)
		clear(plain[fileField : fileField+fileLength])
	}
	if in&2 != 0 {
		plain = append(plain, whole(packet[snameField:snameField+snameLength])...)
		clear(plain[snameField : snameField+snameLength])
	}
	p, err := dhcpv4.FromBytes(append(plain, optionEnd))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNotDHCP, err)
	}
	p.Options.Del(dhcpv4.OptionOptionOverload)
	return p, nil
}

// whole returns the options in data up to END or to the last that is complete,
// without END and without padding behind it.
func whole(data []byte) []byte {
	at := 0
	for at < len(data) && data[at] != optionEnd {
		next := at + 1
		if data[at] != optionPad {
			if next >= len(data) || next+1+int(data[next]) > len(data) {
				break
			}
			next += 1 + int(data[next])
		}
		at = next
	}
	return data[:at]
}

// overload returns which fields carry options too: bit 0 stands for file, bit 1
// for sname.
func overload(options []byte) byte {
	for at := 0; at < len(options); {
		if options[at] == optionPad {
			at++
			continue
		}
		length := int(options[at+1]) // whole has checked that it is there
		if options[at] == optionOverload && length == 1 {
			return options[at+2]
		}
		at += 2 + length
	}
	return 0
}
