package scenarios

import (
	"bytes"
	"context"
	"encoding/binary"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/dhcp"
	"viver.lan/internal/disks"
	"viver.lan/internal/event"
	"viver.lan/internal/sleep"
	"viver.lan/qemu-tests/harness"
	"viver.lan/qemu-tests/harness/media"
	"viver.lan/qemu-tests/harness/outsider"
)

func TestMain(m *testing.M) { os.Exit(outsider.Main(m)) }

// plainROM makes QEMU's boot ROM, which is iPXE, look like that of most BIOS
// machines, which is not: until it has asked for a boot program, it does not say
// what it is. What it is given then, undionly.kpxe, may.
func plainROM() func(frame []byte) {
	asked := false
	return func(frame []byte) {
		const udp = 14 + 20
		if asked || len(frame) < udp+8 || binary.BigEndian.Uint16(frame[12:]) != 0x0800 || frame[23] != 17 {
			return
		}
		switch binary.BigEndian.Uint16(frame[udp+2:]) {
		case 69:
			asked = true
		case dhcp.ServerPort:
			if at := bytes.Index(frame, []byte("\x4d\x04iPXE")); at >= 0 { // option 77
				frame[at+2] = 'x'
				frame[udp+6], frame[udp+7] = 0, 0 // no checksum
			}
		}
	}
}

// A network that has a DHCP server already, which knows nothing of us. It gives
// the addresses, the first node adds the boot program. The machines find their
// disks with drivers that no firmware loaded.
//
//	                     [ dnsmasq ]──┤
//	          [ CD ]──[ first, BIOS ]──┤ lan
//	 nvme disk ──[ a, plain BIOS ROM ]──┤
//	RAID disk ──[ b, UEFI PXE       ]──┤
func TestBesideADHCPServer(t *testing.T) {
	t.Parallel()
	harness.Need(t, "dnsmasq", "mkfs.ext4")
	pool := netip.MustParsePrefix("192.168.40.0/24")
	lab := harness.New(t, harness.Options{})
	lan := segment(t, lab)
	server := outsider.Start(t, lan, outsider.Config{Name: "dnsmasq", MAC: "02:00:00:00:40:01", Address: netip.MustParsePrefix("192.168.40.1/24")},
		"dnsmasq", "--keep-in-foreground", "--log-facility=-", "--log-dhcp", "--conf-file=/dev/null", "--port=0", "--user=", "--group=", "--pid-file=",
		"--interface="+outsider.LinkName, "--dhcp-leasefile="+t.TempDir()+"/leases", "--dhcp-range=192.168.40.100,192.168.40.200,255.255.255.0,1h")
	first := start(t, lab, harness.Config{Name: "first", CDROM: medium(t, "tiny", ""), NICs: []harness.NIC{{LAN: lan}}})
	serving(t, first)
	offered := map[string]string{disks.CacheMarker + "/": ""}
	nvme := "if=none,id=own,format=raw,file=" + disk(t, "nvme.img", media.DiskSpec{FS: "ext4", Files: offered})
	raid := "if=none,id=own,format=raw,file=" + disk(t, "raid.img", media.DiskSpec{FS: "ext4", Files: offered})
	for _, c := range []struct {
		client, disk string
		harness.Config
	}{
		{"BIOS, plain PXE ROM", "nvme0n1", harness.Config{Name: "a", NICs: []harness.NIC{{LAN: lan, Mangle: plainROM()}},
			Args: []string{"-drive", nvme, "-device", "nvme,drive=own,serial=1"}}},
		{"UEFI, PXE", "sda", harness.Config{Name: "b", Firmware: harness.UEFI, NICs: []harness.NIC{{LAN: lan, NoROM: true}},
			Args: []string{"-drive", raid, "-device", "megasas", "-device", "scsi-hd,drive=own"}}},
	} {
		vm := start(t, lab, c.Config)
		readyFrom(t, vm, c.client, besideNetwork)
		joined := wait(t, vm, "the vfield stage", func(s event.Stage) bool { return s.Name == "vfield" && s.State == event.Done })
		if !strings.Contains(joined.Detail, "pieces go to "+c.disk) {
			t.Errorf("%s does not use its disk as a cache: %q", vm.Name(), joined.Detail)
		}
		who := wait(t, vm, "its name", func(event.Node) bool { return true })
		if address, err := netip.ParseAddr(who.Address); err != nil || !pool.Contains(address) || !strings.Contains(server.Log(), "DHCPACK("+outsider.LinkName+") "+who.Address) {
			t.Errorf("%s has the address %q, which the DHCP server did not give it", vm.Name(), who.Address)
		}
		if who.BootedBy == "medium" {
			t.Errorf("%s booted from a medium", vm.Name())
		}
		if line := run(t, vm, "@read", "/proc/cmdline"); c.Firmware == harness.UEFI && !strings.HasPrefix(line, "BOOT_IMAGE=(http,192.168.40.") {
			t.Errorf("%s did not fetch its kernel by HTTP: %s", vm.Name(), line)
		}
		if c.Firmware == "" && !strings.Contains(run(t, first, "dmesg"), "undionly.kpxe") {
			t.Errorf("the ROM of %s was given the script at once", vm.Name())
		}
		vm.PowerCut()
	}
	if s := status(t, first); !pool.Contains(s.Address) || s.BootNetwork.Viver {
		t.Errorf("the first node has no address of the DHCP server: %s, %+v", s.Address, s.BootNetwork)
	}
}

// An installed machine is the first node, beside a DHCP server: no medium at all.
//
//	[ dnsmasq ]──────┤
//	[ viver serve ]──┤ lan
//	[ a, BIOS ]──────┤
func TestServerInPlaceOfAMedium(t *testing.T) {
	t.Parallel()
	harness.Need(t, "dnsmasq")
	lab := harness.New(t, harness.Options{})
	lan := segment(t, lab)
	outsider.Start(t, lan, outsider.Config{Name: "dnsmasq", MAC: "02:00:00:00:40:01", Address: netip.MustParsePrefix("192.168.40.1/24")},
		"dnsmasq", "--keep-in-foreground", "--log-facility=-", "--log-dhcp", "--conf-file=/dev/null", "--port=0", "--user=", "--group=", "--pid-file=",
		"--interface="+outsider.LinkName, "--dhcp-leasefile="+t.TempDir()+"/leases", "--dhcp-range=192.168.40.100,192.168.40.200,255.255.255.0,1h")
	const at = "192.168.40.2"
	server := outsider.Start(t, lan, outsider.Config{Name: "server", MAC: "02:00:00:00:40:02", Address: netip.MustParsePrefix(at + "/24")},
		"sh", "-c", `mount -t tmpfs tmpfs /run && STATE_DIRECTORY=/run/state exec "$@"`, "sh", out(t, "bin", "viver"), "serve", out(t, "tiny"), "--rune", agentRune(t))
	ready, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for !strings.Contains(server.Log(), "service=dhcp state=started") {
		if err := sleep.For(ready, 200*time.Millisecond); err != nil {
			t.Fatalf("the server does not serve: %v", err)
		}
	}
	if !strings.Contains(server.Log(), "no addresses, because foreign DHCP server 192.168.40.1 ") {
		t.Error("the server does not name the DHCP server")
	}
	a := start(t, lab, harness.Config{Name: "a", NICs: []harness.NIC{{LAN: lan}}})
	readyFrom(t, a, "BIOS, from a server", besideNetwork)
	if who := wait(t, a, "its name", func(event.Node) bool { return true }); who.BootedBy != "network, from "+at || !strings.HasPrefix(who.Address, "192.168.40.1") {
		t.Errorf("%s was booted by %q, with the address %s", a.Name(), who.BootedBy, who.Address)
	}
	if s := status(t, a); len(s.Members) != 2 || s.Transfer.FromOrigin == 0 {
		t.Errorf("its members are %+v, and it has %d bytes of the server", s.Members, s.Transfer.FromOrigin)
	}
}
