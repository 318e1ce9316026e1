package scenarios

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"

	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/event"
	"viver.lan/qemu-tests/harness"
	"viver.lan/qemu-tests/harness/outsider"
)

// The whole product in one picture. The stick is pulled and the first node's
// power cut once the network says it needs neither; then a new machine joins, and has
// what the operator has added to the running network.
// Whoever served that one dies too, and another joins. Somebody has an address of
// the usual range by hand, so all use the next one:
//
//	                   [ stranger ]──┤
//	[ USB stick ]──[ first, BIOS ]──┤
//	               [ a, BIOS PXE ]──┤ lan
//	               [ b, UEFI PXE ]──┤
//	        [ c, BIOS PXE, e1000 ]──┤
//	  [ d, BIOS PXE, second card ]──┤
func TestNetworkOutlivesItsFirstNode(t *testing.T) {
	t.Parallel()
	harness.Need(t, "tcpdump")
	image := describe(t, "tiny")
	lab := harness.New(t, harness.Options{})
	lan := segment(t, lab)
	outsider.Start(t, lan, outsider.Config{Name: "stranger", MAC: "02:00:00:00:77:01", Address: netip.MustParsePrefix("10.77.4.1/16")},
		"bash", "-c", "while sleep 0.5; do echo >/dev/udp/10.77.0.1/9; done") // asks for its router
	first := start(t, lab, harness.Config{Name: "first", USBStick: medium(t, "tiny", ""), NICs: []harness.NIC{{LAN: lan}}})
	serving(t, first)
	a := start(t, lab, harness.Config{Name: "a", NICs: []harness.NIC{{LAN: lan}}})
	b := start(t, lab, harness.Config{Name: "b", Firmware: harness.UEFI, NICs: []harness.NIC{{LAN: lan, NoROM: true}}})

	pool := netip.MustParsePrefix("172.29.0.0/16")
	names, addresses, gateway := map[string]bool{}, map[string]bool{}, ""
	for _, vm := range []*harness.VM{first, a, b} {
		name := readyFrom(t, vm, map[*harness.VM]string{first: "BIOS, USB", a: "BIOS, iPXE ROM", b: "UEFI, PXE"}[vm], emptyNetwork)
		who := wait(t, vm, "its name", func(event.Node) bool { return true })
		address, err := netip.ParseAddr(who.Address)
		if err != nil || !pool.Contains(address) {
			t.Errorf("%s has the address %q, want one of %s", vm.Name(), who.Address, pool)
		}
		names[name], addresses[who.Address] = true, true
		// A way out, so that whoever wants to leave the network is seen at it.
		if vm != first {
			run(t, vm, "ip", "route", "add", "default", "via", gateway)
		} else {
			gateway = who.Address
		}
	}
	if len(names) != 3 || len(addresses) != 3 {
		t.Errorf("three machines have the names %v and the addresses %v", names, addresses)
	}

	for _, vm := range []*harness.VM{first, a, b} {
		wait(t, vm, "the network to be independent", func(i event.Independence) bool { return i.Independent })
	}
	version := liveChanges(t, first, first, a, b)
	if err := first.PullUSB(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := digest(t, first, "/dev/nbd0", image.RootFile().Size); got != image.RootFile().SHA256.String() {
		t.Errorf("without its stick the first node reads its root as %s, want %s", got, image.RootFile().SHA256)
	}
	first.PowerCut()
	for _, vm := range []*harness.VM{a, b} {
		if got := digest(t, vm, "/dev/nbd0", image.RootFile().Size); got != image.RootFile().SHA256.String() {
			t.Errorf("with the first node dead %s reads its root as %s, want %s", vm.Name(), got, image.RootFile().SHA256)
		}
	}
	// Machines that are new to the network boot from those that are left. Their
	// addresses are the ones that any boot host gives them.
	colour := "grey"
	joins := func(name, drivers string, nics ...harness.NIC) *harness.VM {
		vm := start(t, lab, harness.Config{Name: name, NICs: nics})
		ready(t, vm)
		if s := wait(t, vm, "the drivers stage", func(s event.Stage) bool { return s.Name == "drivers" && s.State == event.Done }); !strings.Contains(s.Detail, drivers) {
			t.Errorf("%s: the drivers stage says %q, want %q", name, s.Detail, drivers)
		}
		mac, err := ether.ParseMAC(vm.MAC(0))
		if err != nil {
			t.Fatal(err)
		}
		who := wait(t, vm, "its name", func(event.Node) bool { return true })
		if want := dhcp.Candidate(pool, mac, 0).String(); who.BootedBy == "medium" || addresses[who.Address] || who.Address != want {
			t.Errorf("the new machine %s: %+v, want the address %s", name, who, want)
		}
		if got := digest(t, vm, "/dev/nbd0", image.RootFile().Size); got != image.RootFile().SHA256.String() {
			t.Errorf("the new machine %s reads its root as %s, want %s", name, got, image.RootFile().SHA256)
		}
		// It had what was added to the network before its init began.
		run(t, vm, "@read", whoBooted)
		sees(t, vm, version, site(colour))
		return vm
	}
	// One has a card whose driver comes for it alone, the other one a second card, whose
	// driver did not come with that of the first.
	c := joins("c", "not fetched", harness.NIC{LAN: lan, Model: "e1000"})
	// The operator goes on through a machine that was not there before.
	giveKey(t, c)
	colour = "red"
	version = changes(t, c, 3, "rune", "set", "site", "colour="+colour)
	for _, vm := range []*harness.VM{a, b} {
		sees(t, vm, version, site(colour))
	}
	// The one that serves now is, of the two that have been there, that with the
	// lower MAC address.
	serves, left := a, b
	if b.MAC(0) < a.MAC(0) {
		serves, left = b, a
	}
	serves.PowerCut()
	d := joins("d", "files fetched", harness.NIC{LAN: lan}, harness.NIC{LAN: lan, Model: "e1000e", NoROM: true})
	run(t, d, "ls", "/sys/module/e1000e")
	// Most of what is left dies too: what was everywhere is still here.
	c.PowerCut()
	d.PowerCut()
	if got := digest(t, left, "/dev/nbd0", image.RootFile().Size); got != image.RootFile().SHA256.String() {
		t.Errorf("alone, %s reads its root as %s", left.Name(), got)
	}
	nothingLeaves(t, lab, pool)
}

// nothingLeaves reads the capture with tcpdump. Every IPv4 packet stays inside
// the pool, apart from DHCP, the members' beacon and the kernel's own IGMP; the
// swarm speaks no UDP (uTP, DHT); and IPv6 is the kernels' and the firmware's
// business of finding out that nobody routes it.
func nothingLeaves(t *testing.T, lab *harness.Lab, pool netip.Prefix) {
	t.Helper()
	path, err := lab.Capture("lan")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() < 1<<20 {
		t.Fatalf("capture of %v bytes, %v: the swarm's traffic is not in it", info, err)
	}
	text, err := exec.CommandContext(t.Context(), "tcpdump", "-nn", "-r", path,
		"(ip and not dst net "+pool.String()+" and not dst host 255.255.255.255 and not igmp and not (udp and dst host 224.0.0.254 and dst port 7946))"+
			" or udp port 6881 or (ip6 and not icmp6 and not (udp and dst port 547) and not ip6 proto 0)").CombinedOutput()
	if err != nil {
		t.Fatalf("tcpdump: %v\n%s", err, text)
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, " IP ") || strings.Contains(line, " IP6 ") {
			t.Errorf("a packet leaves the boot network: %s", line)
		}
	}
}
