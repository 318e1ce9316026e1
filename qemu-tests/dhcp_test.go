package scenarios

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"viver.lan/internal/event"
	"viver.lan/qemu-tests/harness"
	"viver.lan/qemu-tests/harness/outsider"
)

func TestMain(m *testing.M) {
	outsider.Main()
	os.Exit(m.Run())
}

// A network that has a DHCP server already, which knows nothing of us. It gives
// the addresses, the first node adds the boot program.
//
//	            [ dnsmasq ]──┤
//	[ CD ]────[ first, BIOS ]──┤ lan
//	       [ a, BIOS iPXE ROM ]──┤
//	       [ b, UEFI PXE      ]──┤
func TestBesideADHCPServer(t *testing.T) {
	harness.Need(t, "dnsmasq")
	pool := netip.MustParsePrefix("192.168.40.0/24")
	lab := harness.New(t, harness.Options{VMs: 2})
	lan := segment(t, lab)
	server := outsider.Start(t, lan, outsider.Config{Name: "dnsmasq", MAC: "02:00:00:00:40:01", Address: netip.MustParsePrefix("192.168.40.1/24")},
		"dnsmasq", "--keep-in-foreground", "--log-facility=-", "--log-dhcp", "--conf-file=/dev/null", "--port=0", "--user=", "--group=", "--pid-file=",
		"--interface="+outsider.LinkName, "--dhcp-leasefile="+t.TempDir()+"/leases", "--dhcp-range=192.168.40.100,192.168.40.200,255.255.255.0,1h")
	first := start(t, lab, harness.Config{Name: "first", CDROM: medium(t, "tiny", ""), NICs: []harness.NIC{{LAN: lan}}})
	serving(t, first)
	for _, c := range []harness.Config{
		{Name: "a", NICs: []harness.NIC{{LAN: lan}}},
		{Name: "b", Firmware: harness.UEFI, NICs: []harness.NIC{{LAN: lan, NoROM: true}}},
	} {
		vm := start(t, lab, c)
		ready(t, vm)
		who := wait(t, vm, "its name", func(event.Node) bool { return true })
		if address, err := netip.ParseAddr(who.Address); err != nil || !pool.Contains(address) || !strings.Contains(server.Log(), "DHCPACK("+outsider.LinkName+") "+who.Address) {
			t.Errorf("%s has the address %q, which the DHCP server did not give it", vm.Name(), who.Address)
		}
		if who.BootedBy == "medium" {
			t.Errorf("%s booted from a medium", vm.Name())
		}
		vm.PowerCut()
	}
	if status := run(t, first, "/usr/local/bin/viver", "status"); !strings.Contains(status, "192.168.40.") {
		t.Errorf("the first node has no address of the DHCP server:\n%s", status)
	}
}
