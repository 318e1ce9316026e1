package bootnet

import (
	"bufio"
	"io"
	"net/netip"
	"os"
	"strings"

	"viver.lan/internal/ether"
)

// arpTable is the kernel's table of IPv4 neighbours (proc(5)).
const arpTable = "/proc/net/arp"

// MachineAt names the machine that an address of the link belongs to by its MAC
// address, as the kernel knows it now; "" when it does not know, as of an address
// that is reached through a router.
func MachineAt(addr netip.Addr) string {
	f, err := os.Open(arpTable)
	if err != nil {
		return ""
	}
	defer f.Close()
	return machineIn(f, addr)
}

// machineIn looks an address up in the text of the kernel's table.
func machineIn(table io.Reader, addr netip.Addr) string {
	lines := bufio.NewScanner(table)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 4 || fields[0] != addr.String() {
			continue
		}
		mac, err := ether.ParseMAC(fields[3])
		if err != nil || mac == (ether.MAC{}) { // not complete
			return ""
		}
		return mac.String()
	}
	return ""
}
