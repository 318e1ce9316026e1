package dhcpclient

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/packet"
)

type ack struct {
	reply reply
	frame []byte
}

// testAck is an ACK as a server sends it, changed by edit.
func testAck(t testing.TB, edit func(m *dhcpv4.DHCPv4)) ack {
	t.Helper()
	mac := testMAC()
	m, err := dhcpv4.New(
		dhcpv4.WithTransactionID(dhcpv4.TransactionID{1, 2, 3, 4}),
		dhcpv4.WithHwAddr(mac[:]),
		dhcpv4.WithMessageType(dhcpv4.MessageTypeAck),
		dhcpv4.WithYourIP(net.IPv4(192, 168, 5, 20)),
		dhcpv4.WithServerIP(net.IPv4(192, 168, 5, 2)),
		dhcpv4.WithNetmask(net.CIDRMask(24, 32)),
		dhcpv4.WithLeaseTime(3600),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.IPv4(192, 168, 5, 1))),
		dhcpv4.WithOption(dhcpv4.OptRouter(net.IPv4(192, 168, 5, 1))),
		dhcpv4.WithOption(dhcpv4.OptDNS(net.IPv4(192, 168, 5, 1), net.IPv4(9, 9, 9, 9))),
		dhcpv4.WithOption(dhcpv4.OptNTPServers(net.IPv4(192, 168, 5, 3))),
		dhcpv4.WithOption(dhcpv4.OptHostName("node-7")),
		dhcpv4.WithOption(dhcpv4.OptDomainName("lab.example")))
	if err != nil {
		t.Fatal(err)
	}
	m.OpCode = dhcpv4.OpcodeBootReply
	if edit != nil {
		edit(m)
	}
	frame := packet.Datagram{
		SrcMAC: ether.MAC{2, 0, 0, 0, 0, 1}, DstMAC: mac,
		Src:     netip.MustParseAddrPort("192.168.5.1:67"),
		Dst:     netip.MustParseAddrPort("192.168.5.20:68"),
		Payload: m.ToBytes(),
	}.Marshal()
	r, ok := parseReply(frame, mac, m.TransactionID)
	if !ok {
		t.Fatal("our own reply is not understood")
	}
	return ack{r, frame}
}

func TestLeaseFrom(t *testing.T) {
	got, err := leaseFrom(testAck(t, nil).reply, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	want := bootnet.Lease{
		Source:  bootnet.SourceDHCP,
		Address: netip.MustParsePrefix("192.168.5.20/24"),
		Router:  netip.MustParseAddr("192.168.5.1"),
		DNS:     []netip.Addr{netip.MustParseAddr("192.168.5.1"), netip.MustParseAddr("9.9.9.9")},
		NTP:     []netip.Addr{netip.MustParseAddr("192.168.5.3")},
		Server:  netip.MustParseAddr("192.168.5.1"), ServerMAC: ether.MAC{2, 0, 0, 0, 0, 1},
		BootHost: netip.MustParseAddr("192.168.5.2"),
		Domain:   "lab.example", Hostname: "node-7",
		Obtained: time.Minute, Renew: 30 * time.Minute, Rebind: 3150 * time.Second, Expires: time.Hour,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	data, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	var back bootnet.Lease
	if err := json.Unmarshal(data, &back); err != nil || !reflect.DeepEqual(back, want) {
		t.Errorf("JSON %s came back as %+v, %v", data, back, err)
	}
}

func TestLeaseFromOddServers(t *testing.T) {
	seconds := func(n uint32) []byte { return []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)} }
	set := func(code uint8, value []byte) func(m *dhcpv4.DHCPv4) {
		return func(m *dhcpv4.DHCPv4) { m.Options.Update(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(code), value)) }
	}
	for _, c := range []struct {
		name  string
		edit  func(m *dhcpv4.DHCPv4)
		check func(l bootnet.Lease) bool
	}{
		{"infinite", set(51, seconds(0xffffffff)), func(l bootnet.Lease) bool { return l.Expires == 0 && l.Renew == 0 }},
		{"no lease time", func(m *dhcpv4.DHCPv4) { m.Options.Del(dhcpv4.OptionIPAddressLeaseTime) }, func(l bootnet.Lease) bool { return l.Expires == 0 }},
		{"one second", set(51, seconds(1)), func(l bootnet.Lease) bool { return l.Expires == minLease && l.Renew == minLease/2 }},
		{"T1 after the end", set(58, seconds(9999)), func(l bootnet.Lease) bool { return l.Renew == 30*time.Minute }},
		{"a shell in the host name", set(12, []byte("x;reboot")), func(l bootnet.Lease) bool { return l.Hostname == "" }},
		{"a line break in the domain", set(15, []byte("a\nnameserver 6.6.6.6")), func(l bootnet.Lease) bool { return l.Domain == "" }},
		{"a name that ends in NUL", set(12, []byte("node\x00")), func(l bootnet.Lease) bool { return l.Hostname == "node" }},
		{"no next server", func(m *dhcpv4.DHCPv4) { m.ServerIPAddr = net.IPv4zero }, func(l bootnet.Lease) bool { return !l.BootHost.IsValid() }},
		{"no server identifier", func(m *dhcpv4.DHCPv4) { m.Options.Del(dhcpv4.OptionServerIdentifier) }, func(l bootnet.Lease) bool { return l.Server == netip.MustParseAddr("192.168.5.1") }},
		{"no mask", func(m *dhcpv4.DHCPv4) { m.Options.Del(dhcpv4.OptionSubnetMask) }, func(l bootnet.Lease) bool { return l.Address.String() == "192.168.5.20/24" }},
		{"no mask in class A", func(m *dhcpv4.DHCPv4) {
			m.Options.Del(dhcpv4.OptionSubnetMask)
			m.YourIPAddr = net.IPv4(10, 1, 2, 3)
		}, func(l bootnet.Lease) bool { return l.Address.String() == "10.1.2.3/8" }},
		{"mask with a hole", set(1, []byte{255, 0, 255, 0}), func(l bootnet.Lease) bool { return l.Address.Bits() == 24 }},
		{"half a mask", set(1, []byte{255, 255}), func(l bootnet.Lease) bool { return l.Address.Bits() == 24 }},
		{"a host's mask", set(1, []byte{255, 255, 255, 255}), func(l bootnet.Lease) bool { return l.Address.Bits() == 32 && l.Router.IsValid() }},
		{"giant MTU", set(26, []byte{0xff, 0xff}), func(l bootnet.Lease) bool { return l.MTU == bootnet.MaxMTU }},
		{"a network of two", func(m *dhcpv4.DHCPv4) { m.UpdateOption(dhcpv4.OptSubnetMask(net.CIDRMask(31, 32))) }, func(l bootnet.Lease) bool { return l.Address.Bits() == 31 }},
		{"half an MTU", set(26, []byte{5}), func(l bootnet.Lease) bool { return l.MTU == 0 }},
		{"half a lease time", set(51, []byte{0, 0, 14}), func(l bootnet.Lease) bool { return l.Expires == 0 }},
		{"ten seconds", set(51, seconds(10)), func(l bootnet.Lease) bool { return l.Expires == 10*time.Second && l.Renew == 5*time.Second }},
		{"tiny MTU", set(26, []byte{0, 68}), func(l bootnet.Lease) bool { return l.MTU == 0 }},
		{"jumbo MTU", set(26, []byte{0x23, 0x28}), func(l bootnet.Lease) bool { return l.MTU == 9000 }},
		{"our mark", set(dhcp.OptionMark, []byte(dhcp.Mark)), func(l bootnet.Lease) bool { return l.Viver }},
		{"another's option 224", set(dhcp.OptionMark, []byte("proxy")), func(l bootnet.Lease) bool { return !l.Viver }},
	} {
		l, err := leaseFrom(testAck(t, c.edit).reply, 0)
		if err != nil || !c.check(l) {
			t.Errorf("%s: %+v, %v", c.name, l, err)
		}
	}
	for name, edit := range map[string]func(m *dhcpv4.DHCPv4){
		"no address":    func(m *dhcpv4.DHCPv4) { m.YourIPAddr = net.IPv4zero },
		"multicast":     func(m *dhcpv4.DHCPv4) { m.YourIPAddr = net.IPv4(224, 0, 0, 1) },
		"the network's": func(m *dhcpv4.DHCPv4) { m.YourIPAddr = net.IPv4(192, 168, 5, 0) },
		"its broadcast": func(m *dhcpv4.DHCPv4) { m.YourIPAddr = net.IPv4(192, 168, 5, 255) },
		"loopback":      func(m *dhcpv4.DHCPv4) { m.YourIPAddr = net.IPv4(127, 0, 0, 1) },
		"broadcast":     func(m *dhcpv4.DHCPv4) { m.YourIPAddr = net.IPv4bcast },
		"no mask, no class": func(m *dhcpv4.DHCPv4) {
			m.Options.Del(dhcpv4.OptionSubnetMask)
			m.YourIPAddr = net.IPv4(240, 1, 2, 3)
		},
	} {
		if l, err := leaseFrom(testAck(t, edit).reply, 0); err == nil {
			t.Errorf("%s: accepted as %+v", name, l)
		}
	}
}

// What a lease was read out of in spite of itself is said, and nothing of an
// ordinary one.
func TestOddities(t *testing.T) {
	set := func(code uint8, value ...byte) func(m *dhcpv4.DHCPv4) {
		return func(m *dhcpv4.DHCPv4) { m.Options.Update(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(code), value)) }
	}
	for _, c := range []struct {
		name string
		edit func(m *dhcpv4.DHCPv4)
		want string // in the only sentence; "": none
	}{
		{"ordinary", nil, ""},
		{"jumbo frames", set(26, 0x23, 0x28), ""},
		{"no mask", func(m *dhcpv4.DHCPv4) { m.Options.Del(dhcpv4.OptionSubnetMask) }, "class decides: /24"},
		{"no server identifier", func(m *dhcpv4.DHCPv4) { m.Options.Del(dhcpv4.OptionServerIdentifier) }, "option 54"},
		{"tiny MTU", set(26, 0, 68), "MTU of 68"},
		{"giant MTU", set(26, 0xff, 0xff), "MTU of 65535"},
		{"a lease of a second", set(51, 0, 0, 0, 1), "counted as 4s"},
		{"half a route", set(121, 24, 10, 1, 1, 192, 168), "option 121"},
	} {
		odd := testAck(t, c.edit).reply.defects()
		if c.want == "" && len(odd) != 0 || c.want != "" && (len(odd) != 1 || !strings.Contains(odd[0], c.want)) {
			t.Errorf("%s: %q, want %q", c.name, odd, c.want)
		}
	}
}

// RFC 3442: with classless routes the router of option 3 does not count.
func TestClasslessRoutes(t *testing.T) {
	route := func(b ...byte) []byte { return b }
	for _, c := range []struct {
		name   string
		code   uint8
		value  []byte
		router string
		routes string
	}{
		{"a default and a network", 121, route(0, 192, 168, 5, 9, 16, 10, 1, 192, 168, 5, 2), "192.168.5.9", "[10.1.0.0/16 via 192.168.5.2]"},
		{"a network only", 121, route(16, 10, 1, 192, 168, 5, 2), "invalid IP", "[10.1.0.0/16 via 192.168.5.2]"},
		{"the old number", 249, route(0, 192, 168, 5, 9), "192.168.5.9", "[]"},
		{"on the link", 121, route(24, 10, 1, 2, 0, 0, 0, 0), "invalid IP", "[10.1.2.0/24]"},
		{"one host", 121, route(32, 10, 1, 2, 3, 192, 168, 5, 2), "invalid IP", "[10.1.2.3/32 via 192.168.5.2]"},
		{"bits beside the mask", 121, route(12, 172, 31, 192, 168, 5, 2), "invalid IP", "[172.16.0.0/12 via 192.168.5.2]"},
		{"half of one", 121, route(16, 10, 1, 192, 168), "192.168.5.1", "[]"},
		{"a mask of 33", 121, route(33, 10, 1, 2, 3, 4, 192, 168, 5, 2), "192.168.5.1", "[]"},
		{"our own network", 121, route(24, 192, 168, 5, 192, 168, 5, 9), "invalid IP", "[]"},
		{"loopback and multicast", 121, route(8, 127, 192, 168, 5, 9, 4, 224, 192, 168, 5, 9), "invalid IP", "[]"},
		{"by ourselves", 121, route(16, 10, 1, 192, 168, 5, 20), "invalid IP", "[]"},
		{"too many", 121, bytes.Repeat(route(8, 10, 192, 168, 5, 2), maxRoutes+1), "192.168.5.1", "[]"},
	} {
		l, err := leaseFrom(testAck(t, func(m *dhcpv4.DHCPv4) {
			m.Options.Update(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(c.code), c.value))
		}).reply, 0)
		if err != nil || l.Router.String() != c.router || fmt.Sprint(l.Routes) != c.routes {
			t.Errorf("%s: router %s, routes %v, %v; want %s and %s", c.name, l.Router, l.Routes, err, c.router, c.routes)
		}
	}
}
