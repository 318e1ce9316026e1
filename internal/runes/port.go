package runes

import (
	"fmt"
	"strconv"
	"strings"
)

// Port is one that a service listens on for other machines of the boot network.
type Port struct {
	Protocol string // "tcp" or "udp"
	Number   uint16
}

// parsePort reads a port of rune.toml, such as "tcp/2049".
func parsePort(s string) (Port, error) {
	protocol, number, _ := strings.Cut(s, "/")
	n, err := strconv.ParseUint(number, 10, 16)
	if protocol != "tcp" && protocol != "udp" || err != nil || n == 0 {
		return Port{}, fmt.Errorf("port %.40q: want one such as \"tcp/2049\" or \"udp/123\"", s)
	}
	return Port{protocol, uint16(n)}, nil
}
