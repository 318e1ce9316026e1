package netconf

import (
	"bytes"
	"encoding/json"
	"net"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
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
		dhcpv4.WithOption(dhcpv4.OptHostName("node-7")),
		dhcpv4.WithOption(dhcpv4.OptDomainName("lab.example")))
	if err != nil {
		t.Fatal(err)
	}
	m.OpCode = dhcpv4.OpcodeBootReply
	if edit != nil {
		edit(m)
	}
	frame := datagram{
		srcMAC: MAC{2, 0, 0, 0, 0, 1}, dstMAC: mac,
		src:     netip.MustParseAddrPort("192.168.5.1:67"),
		dst:     netip.MustParseAddrPort("192.168.5.20:68"),
		payload: m.ToBytes(),
	}.marshal()
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
	want := Lease{
		Source:  SourceDHCP,
		Address: netip.MustParsePrefix("192.168.5.20/24"),
		Router:  netip.MustParseAddr("192.168.5.1"),
		DNS:     []netip.Addr{netip.MustParseAddr("192.168.5.1"), netip.MustParseAddr("9.9.9.9")},
		Server:  netip.MustParseAddr("192.168.5.1"), ServerMAC: MAC{2, 0, 0, 0, 0, 1},
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
	var back Lease
	if err := json.Unmarshal(data, &back); err != nil || !reflect.DeepEqual(back, want) {
		t.Errorf("JSON %s came back as %+v, %v", data, back, err)
	}
	if conf := string(got.ResolvConf()); conf != "# Written by VIVER from the lease of the boot network.\nsearch lab.example\nnameserver 192.168.5.1\nnameserver 9.9.9.9\n" {
		t.Errorf("resolv.conf:\n%s", conf)
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
		check func(l Lease) bool
	}{
		{"infinite", set(51, seconds(0xffffffff)), func(l Lease) bool { return l.Expires == 0 && l.Renew == 0 }},
		{"no lease time", func(m *dhcpv4.DHCPv4) { m.Options.Del(dhcpv4.OptionIPAddressLeaseTime) }, func(l Lease) bool { return l.Expires == 0 }},
		{"one second", set(51, seconds(1)), func(l Lease) bool { return l.Expires == minLease && l.Renew == minLease/2 }},
		{"T1 after the end", set(58, seconds(9999)), func(l Lease) bool { return l.Renew == 30*time.Minute }},
		{"a shell in the host name", set(12, []byte("x;reboot")), func(l Lease) bool { return l.Hostname == "" }},
		{"a line break in the domain", set(15, []byte("a\nnameserver 6.6.6.6")), func(l Lease) bool { return l.Domain == "" }},
		{"a name that ends in NUL", set(12, []byte("node\x00")), func(l Lease) bool { return l.Hostname == "node" }},
		{"no next server", func(m *dhcpv4.DHCPv4) { m.ServerIPAddr = net.IPv4zero }, func(l Lease) bool { return !l.BootHost.IsValid() }},
		{"no server identifier", func(m *dhcpv4.DHCPv4) { m.Options.Del(dhcpv4.OptionServerIdentifier) }, func(l Lease) bool { return l.Server == netip.MustParseAddr("192.168.5.1") }},
		{"tiny MTU", set(26, []byte{0, 68}), func(l Lease) bool { return l.MTU == 0 }},
		{"jumbo MTU", set(26, []byte{0x23, 0x28}), func(l Lease) bool { return l.MTU == 9000 }},
		{"our mark", set(OptionMark, []byte(Mark)), func(l Lease) bool { return l.Viver }},
		{"another's option 224", set(OptionMark, []byte("proxy")), func(l Lease) bool { return !l.Viver }},
	} {
		l, err := leaseFrom(testAck(t, c.edit).reply, 0)
		if err != nil || !c.check(l) {
			t.Errorf("%s: %+v, %v", c.name, l, err)
		}
	}
	for name, edit := range map[string]func(m *dhcpv4.DHCPv4){
		"no address":       func(m *dhcpv4.DHCPv4) { m.YourIPAddr = net.IPv4zero },
		"multicast":        func(m *dhcpv4.DHCPv4) { m.YourIPAddr = net.IPv4(224, 0, 0, 1) },
		"no mask":          func(m *dhcpv4.DHCPv4) { m.Options.Del(dhcpv4.OptionSubnetMask) },
		"mask with a hole": set(1, []byte{255, 0, 255, 0}),
	} {
		if l, err := leaseFrom(testAck(t, edit).reply, 0); err == nil {
			t.Errorf("%s: accepted as %+v", name, l)
		}
	}
}

func TestNextAttempt(t *testing.T) {
	l := Lease{Renew: 1800 * time.Second, Rebind: 3150 * time.Second, Expires: 3600 * time.Second}
	for _, c := range []struct{ last, want, method int }{
		{0, 1800, int(unicast)},          // nothing tried: T1
		{1800, 2475, int(unicast)},       // half way to T2
		{3140, 3150, int(broadcast)},     // not past T2
		{3150, 3375, int(broadcast)},     // half way to the end
		{3595, 3600, int(afresh)},        // not past the end
		{3600, 3660, int(afresh)},        // expired: once a minute
		{86400, 86400 + 60, int(afresh)}, // and for ever
		{3100, 3125, int(unicast)},       // half of the rest
		{3135, 3145, int(unicast)},       // but never less than ten seconds
		{1799, 1800, int(unicast)},       // early renewal by hand
		{3590, 3600, int(afresh)},
	} {
		at := l.nextAttempt(time.Duration(c.last) * time.Second)
		if want := time.Duration(c.want) * time.Second; at != want || l.methodAt(at) != method(c.method) {
			t.Errorf("after a try at %d s: next at %v by %v, want %v by %v", c.last, at, l.methodAt(at), want, method(c.method))
		}
	}
}

func TestNetworkFile(t *testing.T) {
	n := Network{
		Link:   Link{Index: 3, Name: "eth0", MAC: testMAC(), Driver: "e1000e"},
		Lease:  Lease{Source: SourceSelf, Address: netip.MustParsePrefix("10.77.3.4/16"), Obtained: time.Second},
		Offers: []Offer{{Server: netip.MustParseAddr("10.0.0.1"), ServerMAC: MAC{2}}, {Server: netip.MustParseAddr("10.77.0.9"), Viver: true}},
	}
	var b bytes.Buffer
	if err := n.Write(&b); err != nil {
		t.Fatal(err)
	}
	back, err := ReadNetwork(bytes.NewReader(b.Bytes()))
	if err != nil || !reflect.DeepEqual(back, n) {
		t.Errorf("came back as %+v, %v", back, err)
	}
	if f := n.Foreign(); len(f) != 1 || f[0].Server != netip.MustParseAddr("10.0.0.1") {
		t.Errorf("foreign: %v", f)
	}
	for _, bad := range []string{"", "{}", `{"link":{"index":1,"mac":"52:54:00:12:34:56"}}`, "[1]", b.String()[:b.Len()/2]} {
		if _, err := ReadNetwork(bytes.NewReader([]byte(bad))); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
}
