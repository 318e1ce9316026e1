package netconnect

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/netbed/lantest"
)

func farServer() netip.Addr { return netip.MustParseAddr("192.168.50.1") }

// The machine with the medium starts beside servers that offer and never give.
func TestNetnsFirstNodeStartsBesideBadServers(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	for name, answer := range map[string]func(*lantest.Server, *dhcpv4.DHCPv4, *dhcpv4.DHCPv4) bool{"refuses": lantest.Refuse, "withholds": lantest.Withhold} {
		t.Run(name, func(t *testing.T) {
			lantest.Serve(t, "far0", &lantest.Server{Address: farServer(), Next: 100, Answer: answer})
			said, log := lantest.Journal(t)
			n, err := Connect(lantest.Within(t, 60*time.Second), Config{First: true, leaseWait: 5 * time.Second, Log: log})
			if err != nil || n.Lease.Source != bootnet.SourceSelf || n.Card.Name != "boot0" || len(n.Foreign()) != 1 {
				t.Errorf("Connect = %+v, %v", n, err)
			}
			for _, want := range []string{"a DHCP server gives no address", "192.168.50.1", "This machine has the medium", "network.interface", "boot1"} {
				if !said.Says(want) {
					t.Errorf("%q is not said", want)
				}
			}
			lantest.Run(t, "ip addr flush dev boot0")
		})
	}
}

// A good server beside one that refuses and one that never gives is used, and
// what it says is lived with: no mask, no identifier.
func TestNetnsGoodServerBesideBadOnes(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	lantest.Serve(t, "far0", &lantest.Server{Address: netip.MustParseAddr("192.168.50.7"), Next: 100, Answer: lantest.Refuse})
	lantest.Serve(t, "far0", &lantest.Server{Address: netip.MustParseAddr("192.168.50.8"), Next: 101, Answer: lantest.Withhold})
	lantest.Serve(t, "far0", &lantest.Server{Address: farServer(), Next: 102, Answer: func(_ *lantest.Server, asked, m *dhcpv4.DHCPv4) bool {
		m.Options.Del(dhcpv4.OptionSubnetMask)
		m.Options.Del(dhcpv4.OptionServerIdentifier)
		return asked.MessageType() == dhcpv4.MessageTypeRequest || asked.NumSeconds >= 3
	}})
	said, log := lantest.Journal(t)
	n, err := Connect(lantest.Within(t, 60*time.Second), Config{Log: log})
	if err != nil || n.Lease.Address.String() != "192.168.50.102/24" || n.Lease.Server != farServer() {
		t.Fatalf("Connect = %+v, %v", n, err)
	}
	for _, want := range []string{"192.168.50.7", "192.168.50.8", "no usable subnet mask", "option 54"} {
		if !said.Says(want) {
			t.Errorf("%q is not said", want)
		}
	}
}

// An address that another machine has is declined, and the next one taken; one
// that nobody has costs no more than the probe.
func TestNetnsAddressInUseIsDeclined(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	lantest.Run(t, "ip -n lan addr add 192.168.50.100/24 dev far0")
	o := lantest.Serve(t, "far0", &lantest.Server{Address: farServer(), Next: 100, Answer: func(o *lantest.Server, asked, m *dhcpv4.DHCPv4) bool {
		if o.Heard[dhcpv4.MessageTypeDecline].Load() > 0 {
			o.Next = 101
			m.YourIPAddr[len(m.YourIPAddr)-1] = o.Next
		}
		return true
	}})
	said, log := lantest.Journal(t)
	n, err := Connect(lantest.Within(t, 60*time.Second), Config{Log: log})
	if err != nil || n.Lease.Address.String() != "192.168.50.101/24" {
		t.Fatalf("Connect = %+v, %v", n, err)
	}
	if o.Heard[dhcpv4.MessageTypeDecline].Load() != 1 || !said.Says("192.168.50.100, which 02:00:00:00:00:01 uses") {
		t.Errorf("%d DECLINEs", o.Heard[dhcpv4.MessageTypeDecline].Load())
	}
	if addrs := lantest.Run(t, "ip addr show boot0"); strings.Contains(addrs, "192.168.50.100") {
		t.Errorf("the address in use was used:\n%s", addrs)
	}
}

// A switch or a router answers for every address: no probe can tell whether one
// is in use, and machines start all the same.
func TestNetnsSomebodyAnswersForAll(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	lantest.AnswerAllARP(t, "far0")
	said, log := lantest.Journal(t)
	// The first node, and the boot host that asks for others.
	n, err := Connect(lantest.Within(t, 60*time.Second), Config{First: true, BootIF: ether.MAC{0x52, 0x54, 0, 0, 0, 1}, Log: log})
	if err != nil || n.Lease.Source != bootnet.SourceSelf || n.Lease.Address.Addr() != dhcp.Candidate(defaultPool(), n.Card.MAC, 0) || !said.Says("proxy ARP") {
		t.Fatalf("Connect = %+v, %v", n, err)
	}
	lantest.Eventually(t, "who answers for all does not count", func() bool { // all three answers have to be there within 200 ms
		_, used, err := bootnet.InUse(lantest.Within(t, 10*time.Second), n.Card, dhcp.Candidate(defaultPool(), ether.MAC{9}, 0))
		return !used && err == nil
	})
	// A node.
	lantest.Run(t, "ip addr flush dev boot0")
	lantest.Serve(t, "far0", &lantest.Server{Address: farServer(), Next: 100})
	if n, err = Connect(lantest.Within(t, 60*time.Second), Config{Log: log}); err != nil || n.Lease.Address.String() != "192.168.50.100/24" {
		t.Errorf("Connect = %+v, %v", n, err)
	}
}

// Routes come by option 121, also without a default route in option 3; a host's
// mask leaves the router reachable.
func TestNetnsClasslessRoutes(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	stop := lantest.DNSMasq(t, lantest.OnFar0, lantest.Range, "--dhcp-option=3", "--dhcp-option=121,0.0.0.0/0,192.168.50.1,10.1.0.0/16,192.168.50.2")
	n, err := Connect(lantest.Within(t, 60*time.Second), Config{Log: lantest.Log(t)})
	if err != nil || n.Lease.Router != farServer() || len(n.Lease.Routes) != 1 {
		t.Fatalf("Connect = %+v, %v", n, err)
	}
	routes := lantest.Run(t, "ip route")
	if !strings.Contains(routes, "default via 192.168.50.1 dev boot0") || !strings.Contains(routes, "10.1.0.0/16 via 192.168.50.2 dev boot0") {
		t.Errorf("routes:\n%s", routes)
	}
	stop()
	lantest.Run(t, "ip addr flush dev boot0")
	lantest.DNSMasq(t, lantest.OnFar0, lantest.Range, "--dhcp-option-force=121,10.2.0.0/16,192.168.50.2")
	if n, err = Connect(lantest.Within(t, 60*time.Second), Config{Log: lantest.Log(t)}); err != nil || n.Lease.Router.IsValid() {
		t.Errorf("Connect = %+v, %v; a router beside classless routes does not count", n, err)
	}
}

// An MTU above Ethernet's holds where the other end carries it, and is given up
// where it does not.
func TestNetnsMTUAboveThePaths(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	lantest.DNSMasq(t, lantest.OnFar0, lantest.Range, "--dhcp-option=26,9000")
	for _, c := range []struct{ carries, want int }{{9000, 9000}, {1500, 1500}} {
		lantest.Run(t, fmt.Sprintf("ip -n lan link set far0 mtu %d", c.carries))
		n, err := Connect(lantest.Within(t, 60*time.Second), Config{Log: lantest.Log(t)})
		if err != nil || n.Lease.MTU != c.want || !strings.Contains(lantest.Run(t, "ip link show boot0"), fmt.Sprintf("mtu %d ", c.want)) {
			t.Errorf("the far end carries %d: Connect = %+v, %v\n%s", c.carries, n, err, lantest.Run(t, "ip link show boot0"))
		}
	}
}

// What the operator set holds for the first node of an empty network, and wrong
// names of cards keep no medium from starting its machine.
func TestNetnsFirstNodeAsTheOperatorSays(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	cfg := Config{First: true, Interface: "boot1", Router: netip.MustParseAddr("10.77.0.1"),
		DNS: []netip.Addr{netip.MustParseAddr("10.77.0.2")}, cardWait: 300 * time.Millisecond}
	said, log := lantest.Journal(t)
	cfg.Log = log
	n, err := Connect(lantest.Within(t, 60*time.Second), cfg)
	if err != nil || n.Card.Name != "boot1" || n.Lease.Router != cfg.Router || len(n.Lease.DNS) != 1 {
		t.Errorf("Connect = %+v, %v", n, err)
	}
	if routes := lantest.Run(t, "ip route"); !strings.Contains(routes, "default via 10.77.0.1 dev boot1") {
		t.Errorf("routes:\n%s", routes)
	}
	if !said.Says("another network card has a cable too") || !said.Says("set=boot0") {
		t.Error("the other card is not spoken of")
	}
	links, err := bootLinks(lantest.Within(t, 20*time.Second), Config{First: true, Interface: "enp3s0", IP: IPArgument{}, cardWait: 100 * time.Millisecond, Log: log})
	if err != nil || len(links) != 2 || !said.Says("enp3s0 (network.interface)") {
		t.Errorf("with a wrong name: %v, %v", links, err)
	}
	links, err = bootLinks(lantest.Within(t, 20*time.Second), Config{Interface: "52:54:00:00:00:02", BootIF: ether.MAC{0x52, 0x54, 0, 0, 0, 1}, Log: log})
	if err != nil || len(links) != 1 || links[0].Name != "boot1" {
		t.Errorf("by its MAC: %v, %v", links, err)
	}
}
