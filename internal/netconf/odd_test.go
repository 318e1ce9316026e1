package netconf

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
)

// odd is a DHCP server at the far end that does what no real one can be told
// to do.
type odd struct {
	address netip.Addr
	mac     ether.MAC
	// next is the last byte of the address that it offers next.
	next byte
	// answer changes an ordinary answer; false: none is sent. nil: as it is.
	answer func(o *odd, asked, m *dhcpv4.DHCPv4) bool
	heard  map[dhcpv4.MessageType]*atomic.Int32
}

// serveOdd answers on a link at the far end until the test ends.
func serveOdd(t *testing.T, on string, o *odd) *odd {
	t.Helper()
	var s *packetSocket
	inLan(t, func() error {
		far, err := net.InterfaceByName(on)
		if err == nil {
			o.mac = ether.MAC(far.HardwareAddr)
			s, err = openPacketSocket(far.Index, etherTypeIPv4, udpTo(dhcp.ServerPort))
		}
		return err
	})
	o.heard = map[dhcpv4.MessageType]*atomic.Int32{}
	for _, kind := range []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeDecline} {
		o.heard[kind] = new(atomic.Int32)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.receiveUntil(ctx, time.Time{}, func(frame []byte) bool {
			if d, err := parseDatagram(frame); err == nil {
				if m, err := dhcp.Decode(d.payload); err == nil {
					o.hear(s, m)
				}
			}
			return false
		})
	}()
	t.Cleanup(func() { cancel(); <-done; s.close() })
	return o
}

func (o *odd) hear(s *packetSocket, asked *dhcpv4.DHCPv4) {
	kind := asked.MessageType()
	if count := o.heard[kind]; count != nil {
		count.Add(1)
	}
	reply := map[dhcpv4.MessageType]dhcpv4.MessageType{
		dhcpv4.MessageTypeDiscover: dhcpv4.MessageTypeOffer, dhcpv4.MessageTypeRequest: dhcpv4.MessageTypeAck}[kind]
	if to := addr4(asked.ServerIdentifier()); reply == dhcpv4.MessageTypeNone || to.IsValid() && to != o.address {
		return
	}
	network := o.address.As4()
	m := &dhcpv4.DHCPv4{OpCode: dhcpv4.OpcodeBootReply, TransactionID: asked.TransactionID, ClientHWAddr: asked.ClientHWAddr,
		YourIPAddr: net.IPv4(network[0], network[1], network[2], o.next), Options: dhcpv4.OptionsFromList(
			dhcpv4.OptMessageType(reply), dhcpv4.OptSubnetMask(net.CIDRMask(24, 32)),
			dhcpv4.OptServerIdentifier(o.address.AsSlice()), dhcpv4.OptIPAddressLeaseTime(time.Hour))}
	if o.answer != nil && !o.answer(o, asked, m) {
		return
	}
	_ = s.send(datagram{srcMAC: o.mac, dstMAC: broadcastMAC(), src: netip.AddrPortFrom(o.address, dhcp.ServerPort),
		dst: netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), dhcp.ClientPort), payload: m.ToBytes()}.marshal())
}

// refuse answers requests with a NAK.
func refuse(_ *odd, asked, m *dhcpv4.DHCPv4) bool {
	if asked.MessageType() == dhcpv4.MessageTypeRequest {
		m.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeNak))
	}
	return true
}

// withhold answers no request.
func withhold(_ *odd, asked, _ *dhcpv4.DHCPv4) bool {
	return asked.MessageType() != dhcpv4.MessageTypeRequest
}

var farServer = netip.MustParseAddr("192.168.50.1")

// The machine with the medium starts beside servers that offer and never give.
func TestNetnsFirstNodeStartsBesideBadServers(t *testing.T) {
	if !inNetns(t) {
		return
	}
	for name, answer := range map[string]func(*odd, *dhcpv4.DHCPv4, *dhcpv4.DHCPv4) bool{"refuses": refuse, "withholds": withhold} {
		t.Run(name, func(t *testing.T) {
			serveOdd(t, "far0", &odd{address: farServer, next: 100, answer: answer})
			said, log := newJournal(t)
			n, err := Connect(within(t, 60*time.Second), Config{First: true, LeaseWait: 5 * time.Second, Log: log})
			if err != nil || n.Lease.Source != SourceSelf || n.Link.Name != "boot0" || len(n.Foreign()) != 1 {
				t.Errorf("Connect = %+v, %v", n, err)
			}
			for _, want := range []string{"a DHCP server gives no address", "192.168.50.1", "This machine has the medium", "network.interface", "boot1"} {
				if !said.Says(want) {
					t.Errorf("%q is not said", want)
				}
			}
			run(t, "ip addr flush dev boot0")
		})
	}
}

// A good server beside one that refuses and one that never gives is used, and
// what it says is lived with: no mask, no identifier.
func TestNetnsGoodServerBesideBadOnes(t *testing.T) {
	if !inNetns(t) {
		return
	}
	serveOdd(t, "far0", &odd{address: netip.MustParseAddr("192.168.50.7"), next: 100, answer: refuse})
	serveOdd(t, "far0", &odd{address: netip.MustParseAddr("192.168.50.8"), next: 101, answer: withhold})
	serveOdd(t, "far0", &odd{address: farServer, next: 102, answer: func(_ *odd, asked, m *dhcpv4.DHCPv4) bool {
		m.Options.Del(dhcpv4.OptionSubnetMask)
		m.Options.Del(dhcpv4.OptionServerIdentifier)
		return asked.MessageType() == dhcpv4.MessageTypeRequest || asked.NumSeconds >= 3
	}})
	said, log := newJournal(t)
	n, err := Connect(within(t, 60*time.Second), Config{Log: log})
	if err != nil || n.Lease.Address.String() != "192.168.50.102/24" || n.Lease.Server != farServer {
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
	if !inNetns(t) {
		return
	}
	run(t, "ip -n lan addr add 192.168.50.100/24 dev far0")
	o := serveOdd(t, "far0", &odd{address: farServer, next: 100, answer: func(o *odd, asked, m *dhcpv4.DHCPv4) bool {
		if o.heard[dhcpv4.MessageTypeDecline].Load() > 0 {
			o.next = 101
			m.YourIPAddr[len(m.YourIPAddr)-1] = o.next
		}
		return true
	}})
	said, log := newJournal(t)
	n, err := Connect(within(t, 60*time.Second), Config{Log: log})
	if err != nil || n.Lease.Address.String() != "192.168.50.101/24" {
		t.Fatalf("Connect = %+v, %v", n, err)
	}
	if o.heard[dhcpv4.MessageTypeDecline].Load() != 1 || !said.Says("192.168.50.100, which 02:00:00:00:00:01 uses") {
		t.Errorf("%d DECLINEs", o.heard[dhcpv4.MessageTypeDecline].Load())
	}
	if addrs := run(t, "ip addr show boot0"); strings.Contains(addrs, "192.168.50.100") {
		t.Errorf("the address in use was used:\n%s", addrs)
	}
}

// A switch or a router answers for every address: no probe can tell whether one
// is in use, and machines start all the same.
func TestNetnsSomebodyAnswersForAll(t *testing.T) {
	if !inNetns(t) {
		return
	}
	answerAll(t, "far0")
	said, log := newJournal(t)
	// The first node, and the boot host that asks for others.
	n, err := Connect(within(t, 60*time.Second), Config{First: true, BootIF: ether.MAC{0x52, 0x54, 0, 0, 0, 1}, Log: log})
	if err != nil || n.Lease.Source != SourceSelf || n.Lease.Address.Addr() != dhcp.Candidate(DefaultPool(), n.Link.MAC, 0) || !said.Says("proxy ARP") {
		t.Fatalf("Connect = %+v, %v", n, err)
	}
	if by, used, err := InUse(within(t, 10*time.Second), n.Link, dhcp.Candidate(DefaultPool(), ether.MAC{9}, 0)); used || err != nil {
		t.Errorf("in use by %s, %v", by, err)
	}
	// A node.
	run(t, "ip addr flush dev boot0")
	serveOdd(t, "far0", &odd{address: farServer, next: 100})
	if n, err = Connect(within(t, 60*time.Second), Config{Log: log}); err != nil || n.Lease.Address.String() != "192.168.50.100/24" {
		t.Errorf("Connect = %+v, %v", n, err)
	}
}

// answerAll answers every ARP request on a link at the far end.
func answerAll(t *testing.T, on string) {
	t.Helper()
	var s *packetSocket
	var mac ether.MAC
	inLan(t, func() error {
		far, err := net.InterfaceByName(on)
		if err == nil {
			mac = ether.MAC(far.HardwareAddr)
			s, err = openPacketSocket(far.Index, etherTypeARP, nil)
		}
		return err
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.receiveUntil(ctx, time.Time{}, func(frame []byte) bool {
			if p, err := parseARP(frame); err == nil && p.op == arpRequest && p.senderMAC != mac && p.senderIP != p.targetIP {
				_ = s.send(arpPacket{op: arpReply, senderMAC: mac, senderIP: p.targetIP, targetMAC: p.senderMAC, targetIP: p.senderIP}.marshal())
			}
			return false
		})
	}()
	t.Cleanup(func() { cancel(); <-done; s.close() })
}

// Routes come by option 121, also without a default route in option 3; a host's
// mask leaves the router reachable.
func TestNetnsClasslessRoutes(t *testing.T) {
	if !inNetns(t) {
		return
	}
	stop := dnsmasq(t, onFar0, range1, "--dhcp-option=3", "--dhcp-option=121,0.0.0.0/0,192.168.50.1,10.1.0.0/16,192.168.50.2")
	n, err := Connect(within(t, 60*time.Second), Config{Log: testLog(t)})
	if err != nil || n.Lease.Router != farServer || len(n.Lease.Routes) != 1 {
		t.Fatalf("Connect = %+v, %v", n, err)
	}
	routes := run(t, "ip route")
	if !strings.Contains(routes, "default via 192.168.50.1 dev boot0") || !strings.Contains(routes, "10.1.0.0/16 via 192.168.50.2 dev boot0") {
		t.Errorf("routes:\n%s", routes)
	}
	stop()
	run(t, "ip addr flush dev boot0")
	dnsmasq(t, onFar0, range1, "--dhcp-option-force=121,10.2.0.0/16,192.168.50.2")
	if n, err = Connect(within(t, 60*time.Second), Config{Log: testLog(t)}); err != nil || n.Lease.Router.IsValid() {
		t.Errorf("Connect = %+v, %v; a router beside classless routes does not count", n, err)
	}
}

// An MTU above Ethernet's holds where the other end carries it, and is given up
// where it does not.
func TestNetnsMTUAboveThePaths(t *testing.T) {
	if !inNetns(t) {
		return
	}
	dnsmasq(t, onFar0, range1, "--dhcp-option=26,9000")
	for _, c := range []struct{ carries, want int }{{9000, 9000}, {1500, 1500}} {
		run(t, fmt.Sprintf("ip -n lan link set far0 mtu %d", c.carries))
		n, err := Connect(within(t, 60*time.Second), Config{Log: testLog(t)})
		if err != nil || n.Lease.MTU != c.want || !strings.Contains(run(t, "ip link show boot0"), fmt.Sprintf("mtu %d ", c.want)) {
			t.Errorf("the far end carries %d: Connect = %+v, %v\n%s", c.carries, n, err, run(t, "ip link show boot0"))
		}
	}
}

// A lease of seconds is kept.
func TestNetnsLeaseOfSeconds(t *testing.T) {
	if !inNetns(t) {
		return
	}
	o := serveOdd(t, "far0", &odd{address: farServer, next: 100, answer: func(_ *odd, asked, m *dhcpv4.DHCPv4) bool {
		m.UpdateOption(dhcpv4.OptIPAddressLeaseTime(5 * time.Second))
		return true
	}})
	n, err := Connect(within(t, 60*time.Second), Config{Log: testLog(t)})
	if err != nil || n.Lease.Expires != 5*time.Second {
		t.Fatalf("Connect = %+v, %v", n, err)
	}
	guardWith(t, GuardConfig{Network: n, Log: testLog(t)})
	eventually(t, "renewed three times", func() bool { return o.heard[dhcpv4.MessageTypeRequest].Load() >= 4 })
}

// What the operator set holds for the first node of an empty network, and wrong
// names of cards keep no medium from starting its machine.
func TestNetnsFirstNodeAsTheOperatorSays(t *testing.T) {
	if !inNetns(t) {
		return
	}
	cfg := Config{First: true, Interface: "boot1", Router: netip.MustParseAddr("10.77.0.1"),
		DNS: []netip.Addr{netip.MustParseAddr("10.77.0.2")}, BootIFWait: 300 * time.Millisecond}
	said, log := newJournal(t)
	cfg.Log = log
	n, err := Connect(within(t, 60*time.Second), cfg)
	if err != nil || n.Link.Name != "boot1" || n.Lease.Router != cfg.Router || len(n.Lease.DNS) != 1 {
		t.Errorf("Connect = %+v, %v", n, err)
	}
	if routes := run(t, "ip route"); !strings.Contains(routes, "default via 10.77.0.1 dev boot1") {
		t.Errorf("routes:\n%s", routes)
	}
	if !said.Says("another network card has a cable too") || !said.Says("set=boot0") {
		t.Error("the other card is not spoken of")
	}
	links, err := bootLinks(within(t, 20*time.Second), Config{First: true, Interface: "enp3s0", IP: IPArgument{}, BootIFWait: 100 * time.Millisecond, Log: log})
	if err != nil || len(links) != 2 || !said.Says("enp3s0 (network.interface)") {
		t.Errorf("with a wrong name: %v, %v", links, err)
	}
	links, err = bootLinks(within(t, 20*time.Second), Config{Interface: "52:54:00:00:00:02", BootIF: ether.MAC{0x52, 0x54, 0, 0, 0, 1}, Log: log})
	if err != nil || len(links) != 1 || links[0].Name != "boot1" {
		t.Errorf("by its MAC: %v, %v", links, err)
	}
}
