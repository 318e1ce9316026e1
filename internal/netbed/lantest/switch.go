package lantest

import (
	"strings"
	"testing"
)

// Switch puts a switch on the network of boot0, with room for a server that has
// 192.168.50.1; options are the switch's, as ip-link(8) has them:
//
//	boot0 ---- far0  \  br0     all but boot0 in the namespace "lan"
//	 srv0 ---- port0 /
func Switch(t *testing.T, options string) {
	t.Helper()
	for _, line := range []string{
		"ip -n lan addr flush dev far0",
		"ip -n lan link add br0 type bridge " + options,
		"ip -n lan link set br0 up",
		"ip -n lan link set far0 master br0",
		"ip -n lan link add srv0 type veth peer name port0",
		"ip -n lan link set port0 master br0 up",
		"ip -n lan link set srv0 up",
		"ip -n lan addr add 192.168.50.1/24 dev srv0",
	} {
		Run(t, line)
	}
}

// SwitchAndServer is Switch with a DHCP server on srv0.
func SwitchAndServer(t *testing.T, options string) {
	t.Helper()
	Switch(t, options)
	DNSMasq(t, "--interface=srv0", Range, "--no-ping")
}

// AwaitForwarding waits until boot0's port of the switch is open.
func AwaitForwarding(t *testing.T) {
	t.Helper()
	Eventually(t, "an open switch port", func() bool {
		return strings.Contains(Run(t, "bridge -n lan link show dev far0"), "state forwarding")
	})
}

// ClosePort switches boot0 on and has the switch forward nothing to it and from it,
// until OpenPort or until the cable is pulled and put back.
func ClosePort(t *testing.T) {
	t.Helper()
	Run(t, "ip link set boot0 up")
	AwaitForwarding(t)
	Run(t, "bridge -n lan link set dev far0 state 0")
}

// OpenPort has the switch forward again.
func OpenPort(t *testing.T) {
	t.Helper()
	Run(t, "bridge -n lan link set dev far0 state 3")
	AwaitForwarding(t)
}
