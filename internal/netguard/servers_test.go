package netguard

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/dhcpclient"
	"viver.lan/internal/ether"
	"viver.lan/internal/netbed/lantest"
	"viver.lan/internal/packet"
	"viver.lan/internal/sleep"
)

// alone puts the machine on a network without a DHCP server, behind a switch.
func alone(t *testing.T) bootnet.Network {
	t.Helper()
	lantest.Switch(t, "")
	card := bootnet.CardFrom(lantest.Card(t, "boot0"))
	address := netip.PrefixFrom(dhcp.Candidate(netip.MustParsePrefix("10.77.0.0/16"), card.MAC, 0), 16)
	n := bootnet.Network{Card: card, Lease: bootnet.Lease{Source: bootnet.SourceSelf, Address: address, BootHost: address.Addr()}}
	if err := bootnet.Apply(n.Card, n.Lease); err != nil {
		t.Fatal(err)
	}
	return n
}

// moved waits until the machine has a foreign server's address, and only that.
func moved(t *testing.T, g *Guard, from netip.Prefix) {
	t.Helper()
	lantest.Eventually(t, "an address of the foreign server", func() bool {
		addrs := lantest.Run(t, "ip addr show boot0")
		return strings.Contains(addrs, "inet 192.168.50.1") && !strings.Contains(addrs, from.String())
	})
	if l := g.leaseNow(); l.Source != bootnet.SourceDHCP || l.Viver || l.Server != netip.MustParseAddr("192.168.50.1") {
		t.Errorf("lease: %+v", l)
	}
}

// A server that arrives later is found by asking.
func TestNetnsServerComesLater(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	n := alone(t)
	changes := make(chan change, 16)
	g := guardWith(t, Config{Network: n, askEvery: 100 * time.Millisecond, Changed: func(old, new bootnet.Lease) { changes <- change{old, new} }})
	// One of our own does not count, whatever it offers.
	stop := lantest.DNSMasq(t, "--interface=srv0", lantest.Range, "--dhcp-option-force=224,viver")
	if err := sleep.For(t.Context(), 3*dhcpclient.OfferWait/2); err != nil {
		t.Fatal(err)
	}
	if len(changes) != 0 || g.leaseNow().Address != n.Lease.Address {
		t.Errorf("moved to a VIVER boot host: %+v", g.leaseNow())
	}
	stop()
	lantest.DNSMasq(t, "--interface=srv0", lantest.Range)
	moved(t, g, n.Lease.Address)
	if c := <-changes; c.old.Address != n.Lease.Address || c.new.Address != g.leaseNow().Address {
		t.Errorf("told of %s -> %s, the lease is %s", c.old.Address, c.new.Address, g.leaseNow())
	}
}

// What a server says to somebody else is overheard.
func TestNetnsServerIsOverheard(t *testing.T) {
	if !lantest.Enter(t, "udhcpc") {
		return
	}
	n := alone(t)
	g := guardWith(t, Config{Network: n, askEvery: time.Hour})
	lantest.DNSMasq(t, "--interface=srv0", lantest.Range, "--dhcp-broadcast")
	for _, line := range []string{
		"ip -n lan link add pc0 type veth peer name port1",
		"ip -n lan link set port1 master br0 up",
		"ip -n lan link set pc0 up",
	} {
		lantest.Run(t, line)
	}
	out, err := exec.Command("ip", "netns", "exec", "lan", "udhcpc", "-B", "-f", "-i", "pc0", "-n", "-q", "-s", "/bin/true").CombinedOutput()
	if err != nil {
		t.Fatalf("udhcpc: %v\n%s", err, out)
	}
	moved(t, g, n.Lease.Address)
	if strings.Contains(string(out), fmt.Sprintf("lease of %s obtained", g.leaseNow().Address.Addr())) {
		t.Errorf("took the stranger's address:\n%s", out)
	}
}

// A node whose address is a boot host's moves with it: what a machine says to
// another server is sign enough to ask that one.
func TestNetnsNodesFollow(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	n := alone(t)
	n.Lease.Source, n.Lease.Viver, n.Lease.Server = bootnet.SourceDHCP, true, netip.MustParseAddr("10.77.0.9")
	g := guardWith(t, Config{Network: n, askEvery: 100 * time.Millisecond})
	far, _ := lantest.FarSocket(t, "srv0", packet.EtherTypeIPv4, nil)
	lantest.DNSMasq(t, "--interface=srv0", lantest.Range, "--no-ping")
	other := ether.MAC{2, 0, 0, 0, 0, 0x77}
	request := lantest.RequestTo(t, netip.MustParseAddr("192.168.50.1"), other)
	if _ = sleep.For(t.Context(), time.Second); g.leaseNow().Address != n.Lease.Address {
		t.Errorf("moved without a sign: %+v", g.leaseNow())
	}
	lantest.Eventually(t, "another lease", func() bool {
		_ = far.Send(request) // the bridge may not forward yet
		return g.leaseNow().Address != n.Lease.Address
	})
	moved(t, g, n.Lease.Address)
}
