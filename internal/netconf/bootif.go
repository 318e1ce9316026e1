package netconf

import (
	"fmt"
	"strings"

	"viver.lan/internal/ether"
)

// ParseBootIF reads the value of the kernel argument BOOTIF. PXELINUX and GRUB
// put the ARP hardware type (01, Ethernet) before the address, iPXE need not:
// both 01-52-54-00-12-34-56 and 52:54:00:12:34:56 are understood.
func ParseBootIF(s string) (ether.MAC, error) {
	address := strings.ReplaceAll(strings.TrimSpace(s), "-", ":")
	if strings.Count(address, ":") == 6 {
		kind, rest, _ := strings.Cut(address, ":")
		if kind != "01" {
			return ether.MAC{}, fmt.Errorf("BOOTIF=%s: hardware type %q, only 01 (Ethernet) is supported", s, kind)
		}
		address = rest
	}
	mac, err := ether.ParseMAC(address)
	if err != nil {
		return ether.MAC{}, fmt.Errorf("BOOTIF=%s: want 01-aa-bb-cc-dd-ee-ff or aa:bb:cc:dd:ee:ff", s)
	}
	return mac, nil
}
