package bootnet

import (
	"net/netip"
	"strings"
	"testing"
)

func TestMachineIn(t *testing.T) {
	const table = `IP address       HW type     Flags       HW address            Mask     Device
10.77.0.1        0x1         0x2         52:54:00:12:34:56     *        eth0
10.77.0.10       0x1         0x0         00:00:00:00:00:00     *        eth0
10.77.0.2        0x1         0x2         garbage               *        eth0
10.77.0.3
`
	for addr, want := range map[string]string{
		"10.77.0.1": "52:54:00:12:34:56", "10.77.0.10": "", "10.77.0.2": "", "10.77.0.3": "", "10.77.0.4": "",
	} {
		if got := machineIn(strings.NewReader(table), netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s is on %q, want %q", addr, got, want)
		}
	}
	if got := MachineAt(netip.MustParseAddr("127.0.0.1")); got != "" {
		t.Errorf("the loopback is on %q", got)
	}
}
