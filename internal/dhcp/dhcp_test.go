package dhcp

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/ether"
)

// Packets in testdata were sent by real programs under QEMU and in a network
// namespace: SeaBIOS with iPXE's ROM, OVMF's own PXE and HTTP clients, busybox
// udhcpc and ISC dhclient.
func fixture(t testing.TB, name string) *dhcpv4.DHCPv4 {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name+".bin"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := dhcpv4.FromBytes(data)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return p
}

const (
	selfIP  = "10.77.3.9"
	script  = "http://10.77.3.9/boot.ipxe"
	shimURL = "http://10.77.3.9/boot/cafe/boot/shimx64.efi"
)

var (
	testNow = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	testMAC = ether.MAC{0x52, 0x54, 0, 0xaa, 0, 0x20}
	on67    = Arrival{Port: ServerPort, From: netip.MustParseAddrPort("0.0.0.0:68")}
	on4011  = Arrival{Port: PXEPort, From: netip.MustParseAddrPort("10.77.1.1:68")}
	bcast   = netip.MustParseAddrPort("255.255.255.255:68")
)

func testConfig(mode Mode) *Config {
	return &Config{
		Mode:    mode,
		MAC:     ether.MAC{0x52, 0x54, 0, 0xff, 0, 1},
		Address: netip.MustParsePrefix(selfIP + "/16"),
		Lease:   time.Hour,
		Script:  script,
		Programs: map[Platform]Program{
			BIOS: {TFTP: "undionly.kpxe"},
			X64:  {TFTP: "shimx64.efi", URL: shimURL},
		},
	}
}

func testTable() *Leases {
	return NewLeases(netip.MustParsePrefix("10.77.0.0/16"), func() time.Time { return testNow }, netip.MustParseAddr(selfIP))
}

type change func(*dhcpv4.DHCPv4)

func with(p *dhcpv4.DHCPv4, changes ...change) *dhcpv4.DHCPv4 {
	for _, c := range changes {
		c(p)
	}
	return p
}

func as(t dhcpv4.MessageType) change {
	return func(p *dhcpv4.DHCPv4) { p.UpdateOption(dhcpv4.OptMessageType(t)) }
}

func opt(code uint8, data ...byte) change {
	return func(p *dhcpv4.DHCPv4) { p.UpdateOption(dhcpv4.OptGeneric(dhcpv4.GenericOptionCode(code), data)) }
}

func without(code uint8) change {
	return func(p *dhcpv4.DHCPv4) { p.DeleteOption(dhcpv4.GenericOptionCode(code)) }
}

func mac(m ether.MAC) change {
	return func(p *dhcpv4.DHCPv4) { p.ClientHWAddr = net.HardwareAddr(m[:]) }
}

func server(addr string) change {
	return func(p *dhcpv4.DHCPv4) { p.UpdateOption(dhcpv4.OptServerIdentifier(net.ParseIP(addr))) }
}

func wants(addr netip.Addr) change {
	return func(p *dhcpv4.DHCPv4) { p.UpdateOption(dhcpv4.OptRequestedIPAddress(ip(addr))) }
}

// nodeRequest is what VIVER's initramfs sends.
func nodeRequest(t testing.TB, m ether.MAC, changes ...change) *dhcpv4.DHCPv4 {
	t.Helper()
	p, err := dhcpv4.NewDiscovery(net.HardwareAddr(m[:]), dhcpv4.WithOption(dhcpv4.OptClassIdentifier(NodeClass+" 1")))
	if err != nil {
		t.Fatal(err)
	}
	return with(p, changes...)
}

func TestClassify(t *testing.T) {
	arch := func(n byte) change { return opt(93, 0, n) }
	for _, tc := range []struct {
		name     string
		packet   *dhcpv4.DHCPv4
		kind     Kind
		platform Platform
	}{
		{"iPXE in a BIOS ROM", fixture(t, "ipxe-bios-discover"), IPXE, BIOS},
		{"that ROM without its user class", with(fixture(t, "ipxe-bios-discover"), without(77)), PXE, BIOS},
		{"length-prefixed user class", with(fixture(t, "ipxe-bios-discover"), opt(77, 4, 'i', 'P', 'X', 'E')), IPXE, BIOS},
		{"second of two user classes", with(fixture(t, "ipxe-bios-discover"), opt(77, 1, 'x', 4, 'i', 'P', 'X', 'E')), IPXE, BIOS},
		{"another user class", with(fixture(t, "ipxe-bios-discover"), opt(77, []byte("iPXE2")...)), PXE, BIOS},
		{"user class cut short", with(fixture(t, "ipxe-bios-discover"), opt(77, 9, 'i', 'P')), PXE, BIOS},
		{"undionly.kpxe", fixture(t, "ipxe-undionly-discover"), IPXE, BIOS},
		{"OVMF PXE", fixture(t, "ovmf-pxe-discover"), PXE, X64},
		{"OVMF PXE as EFI BC", with(fixture(t, "ovmf-pxe-discover"), arch(9)), PXE, X64},
		{"OVMF PXE without option 93", with(fixture(t, "ovmf-pxe-discover"), without(93)), PXE, X64},
		{"old BIOS without architecture", with(fixture(t, "ovmf-pxe-discover"), without(93), opt(60, []byte("PXEClient")...)), PXE, BIOS},
		{"class with a broken architecture", with(fixture(t, "ovmf-pxe-discover"), without(93), opt(60, []byte("PXEClient:Arch:0000x:")...)), PXE, BIOS},
		{"UEFI ia32", with(fixture(t, "ovmf-pxe-discover"), arch(6)), PXE, IA32},
		{"UEFI arm64", with(fixture(t, "ovmf-pxe-discover"), arch(11)), PXE, ARM64},
		{"something unheard of", with(fixture(t, "ovmf-pxe-discover"), arch(200)), PXE, ""},
		{"OVMF HTTP Boot", fixture(t, "ovmf-http-discover"), HTTPBoot, X64},
		{"our initramfs", nodeRequest(t, testMAC), Node, BIOS},
		{"udhcpc", fixture(t, "udhcpc-discover"), OtherClient, BIOS},
		{"dhclient", fixture(t, "dhclient-discover"), OtherClient, BIOS},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := Classify(tc.packet)
			if err != nil {
				t.Fatal(err)
			}
			if got.Kind != tc.kind || got.Platform != tc.platform {
				t.Errorf("got %s on %q, want %s on %q", got.Kind, got.Platform, tc.kind, tc.platform)
			}
		})
	}
	if _, err := Classify(with(fixture(t, "dhclient-discover"), func(p *dhcpv4.DHCPv4) { p.ClientHWAddr = p.ClientHWAddr[:3] })); err == nil {
		t.Error("a hardware address of three bytes passed")
	}
}

// summary is the part of a decision that the table below compares: message
// type, boot file, option 60, option 43 as hex, address given or not, and
// where to.
func summary(d Decision) string {
	if d.Reply == nil {
		return "-"
	}
	r := d.Reply
	s := fmt.Sprintf("%s file=%s class=%s", r.MessageType(), r.BootFileName, r.ClassIdentifier())
	if v := r.Options.Get(dhcpv4.OptionVendorSpecificInformation); v != nil {
		s += fmt.Sprintf(" 43=%x", v)
	}
	if v := r.Options.Get(dhcpv4.GenericOptionCode(175)); v != nil {
		s += fmt.Sprintf(" 175=%x", v)
	}
	if !r.YourIPAddr.IsUnspecified() {
		s += " address"
	}
	if d.To != bcast {
		s += " to=" + d.To.String()
	}
	return s
}

func TestDecide(t *testing.T) {
	const (
		bios = "undionly.kpxe class=PXEClient 43=060108ff"
		x64  = "shimx64.efi class=PXEClient 43=060108ff"
		http = shimURL + " class=HTTPClient"
		ipxe = script + " class=PXEClient 175=b00101"
	)
	request := as(dhcpv4.MessageTypeRequest)
	free := Candidate(netip.MustParsePrefix("10.77.0.0/16"), testMAC, 0)
	rom := func(c ...change) *dhcpv4.DHCPv4 { return with(fixture(t, "ipxe-bios-discover"), c...) }
	ovmf := func(c ...change) *dhcpv4.DHCPv4 { return with(fixture(t, "ovmf-pxe-discover"), c...) }
	uhttp := func(c ...change) *dhcpv4.DHCPv4 { return with(fixture(t, "ovmf-http-discover"), c...) }
	node := func(c ...change) *dhcpv4.DHCPv4 { return nodeRequest(t, testMAC, c...) }
	relay := func(p *dhcpv4.DHCPv4) { p.GatewayIPAddr = net.IPv4(10, 9, 0, 1) }
	at67, renewal := on67, Arrival{Port: ServerPort, From: netip.AddrPortFrom(free, ClientPort)}
	ciaddr := func(p *dhcpv4.DHCPv4) { p.ClientIPAddr = ip(free) }

	for _, tc := range []struct {
		name   string
		mode   Mode
		at     Arrival
		packet *dhcpv4.DHCPv4
		want   string
		reason string
	}{
		{"BIOS", Full, at67, rom(without(77)), "OFFER file=" + bios + " address", "OFFER"},
		{"UEFI", Full, at67, ovmf(), "OFFER file=" + x64 + " address", "OFFER"},
		{"HTTP Boot", Full, at67, uhttp(), "OFFER file=" + http + " address", "OFFER"},
		{"iPXE", Full, at67, rom(), "OFFER file=" + ipxe + " address", "OFFER"},
		{"node", Full, at67, node(), "OFFER file= class= address", "OFFER"},
		{"udhcpc", Full, at67, fixture(t, "udhcpc-discover"), "-", "another client"},
		{"dhclient", Full, at67, fixture(t, "dhclient-discover"), "-", "another client"},
		{"UEFI ia32", Full, at67, ovmf(opt(93, 0, 6)), "-", "architecture 6"},
		{"HTTP Boot on BIOS", Full, at67, uhttp(opt(93, 0, 20)), "-", "no boot program"},
		{"iPXE on arm64", Full, at67, rom(opt(93, 0, 11)), "-", "architecture 11"},
		{"request", Full, at67, ovmf(request, mac(testMAC), wants(free), server(selfIP)), "ACK file=" + x64 + " address", "ACK"},
		{"another server's", Full, at67, ovmf(request, wants(free), server("10.77.0.1")), "-", "meant for server 10.77.0.1"},
		{"a ROM that chose another server", Full, at67, fixture(t, "ipxe-bios-request-elsewhere"), "-", "meant for server 10.77.0.1"},
		{"undionly", Full, at67, fixture(t, "ipxe-undionly-discover"), "OFFER file=" + ipxe + " address", "OFFER"},
		{"other client's request", Full, at67, with(fixture(t, "udhcpc-discover"), request, wants(free)), "-", "another client"},
		{"remembered", Full, at67, node(request, wants(free)), "ACK file= class= address", "ACK"},
		{"renewal", Full, renewal, node(request, ciaddr), "ACK file= class= address to=" + free.String() + ":68", "ACK"},
		{"renewal, forged sender", Full, at67, node(request, ciaddr), "ACK file= class= address", "ACK"},
		{"our own address", Full, at67, node(request, wants(netip.MustParseAddr(selfIP))), "NAK file= class=", "not given"},
		{"outside", Full, at67, node(request, wants(netip.MustParseAddr("192.168.1.5"))), "NAK file= class=", "outside"},
		{"network address", Full, at67, node(request, wants(netip.MustParseAddr("10.77.0.0"))), "NAK file= class=", "not given"},
		{"broadcast address", Full, at67, node(request, wants(netip.MustParseAddr("10.77.255.255"))), "NAK file= class=", "not given"},
		{"no address", Full, at67, node(request), "-", "without an address"},
		{"inform", Full, at67, ovmf(as(dhcpv4.MessageTypeInform)), "-", "no answer"},
		{"release", Full, at67, node(as(dhcpv4.MessageTypeRelease)), "-", "release"},
		{"decline of nothing", Full, at67, node(as(dhcpv4.MessageTypeDecline), wants(free)), "-", "not given"},
		{"BOOTP", Full, at67, ovmf(without(53)), "-", "no answer"},
		{"relayed", Full, at67, ovmf(relay), "-", "relayed by 10.9.0.1"},
		{"our own request", Full, at67, ovmf(mac(ether.MAC{0x52, 0x54, 0, 0xff, 0, 1})), "-", "our own"},
		{"multicast MAC", Full, at67, ovmf(mac(ether.MAC{1})), "-", "not the address of a machine"},
		{"a reply", Full, at67, ovmf(func(p *dhcpv4.DHCPv4) { p.OpCode = dhcpv4.OpcodeBootReply }), "-", "not a request"},

		{"BIOS beside", Proxy, at67, rom(without(77)), "OFFER file=" + bios, "OFFER"},
		{"UEFI beside", Proxy, at67, ovmf(), "OFFER file=" + x64, "OFFER"},
		{"HTTP Boot beside", Proxy, at67, uhttp(), "OFFER file=" + http, "OFFER"},
		{"iPXE beside", Proxy, at67, rom(), "OFFER file=" + ipxe, "OFFER"},
		{"node beside", Proxy, at67, node(), "-", "own server"},
		{"request beside", Proxy, at67, ovmf(request, wants(free)), "-", "only DISCOVER"},
		{"request to us beside", Proxy, at67, ovmf(request, wants(free), server(selfIP)), "NAK file= class=", "another server"},
		{"remembered beside", Proxy, at67, node(request, wants(free)), "-", "own server"},
		{"relayed beside", Proxy, at67, ovmf(relay), "-", "relayed by 10.9.0.1"},
		{"4011", Proxy, on4011, ovmf(request, server(selfIP)), "ACK file=" + x64 + " to=10.77.1.1:68", "ACK"},
		{"4011 inform", Proxy, on4011, ovmf(as(dhcpv4.MessageTypeInform)), "ACK file=" + x64 + " to=10.77.1.1:68", "ACK"},
		{"4011 in full mode", Full, on4011, ovmf(request), "ACK file=" + x64 + " to=10.77.1.1:68", "ACK"},
		{"4011, another's", Proxy, on4011, ovmf(request, server("10.77.0.1")), "-", "meant for"},
		{"4011 other client", Proxy, on4011, fixture(t, "udhcpc-discover"), "-", "another client"},
		{"4011 node", Proxy, on4011, node(request), "-", "nothing to ask"},
		{"4011 release", Proxy, on4011, ovmf(as(dhcpv4.MessageTypeRelease)), "-", "no answer"},

		{"external", External, at67, ovmf(), "-", "own DHCP server names"},
		{"external 4011", External, on4011, ovmf(request), "-", "own DHCP server names"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := Decide(tc.packet, tc.at, testConfig(tc.mode), testTable())
			if got := summary(d); got != tc.want {
				t.Errorf("got  %s (%s)\nwant %s", got, d.Reason, tc.want)
			}
			if !strings.Contains(d.Reason, tc.reason) {
				t.Errorf("reason %q does not say %q", d.Reason, tc.reason)
			}
		})
	}
}

// What was given before another server came stays, and no machine gets two
// addresses.
func TestAddressesGivenBeforeStay(t *testing.T) {
	table, request := testTable(), as(dhcpv4.MessageTypeRequest)
	addr, err := table.Find(testMAC)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(mode Mode, p *dhcpv4.DHCPv4) dhcpv4.MessageType {
		d := Decide(p, on67, testConfig(mode), table)
		if d.Reply == nil {
			return dhcpv4.MessageTypeNone
		}
		return d.Reply.MessageType()
	}
	offered := nodeRequest(t, testMAC, request, wants(addr), server(selfIP))
	renewal := nodeRequest(t, testMAC, request, func(p *dhcpv4.DHCPv4) { p.ClientIPAddr = ip(addr) })
	for _, step := range []struct {
		what   string
		mode   Mode
		packet *dhcpv4.DHCPv4
		want   dhcpv4.MessageType
	}{
		{"offered before, asked for after", Proxy, offered, dhcpv4.MessageTypeNak},
		{"offered and asked for before", Full, offered, dhcpv4.MessageTypeAck},
		{"the same once more after", Proxy, offered, dhcpv4.MessageTypeAck},
		{"renewed after", Proxy, renewal, dhcpv4.MessageTypeAck},
		{"new after", Proxy, nodeRequest(t, testMAC), dhcpv4.MessageTypeNone},
		{"the other is gone", Full, renewal, dhcpv4.MessageTypeAck},
	} {
		if got := ask(step.mode, step.packet); got != step.want {
			t.Errorf("%s: %s, want %s", step.what, got, step.want)
		}
	}
}

// A link with a small MTU is told of, one with a large is not: a switch may not
// forward jumbo frames.
func TestMTUIsGiven(t *testing.T) {
	for mtu, want := range map[int]string{0: "", 1280: "\x05\x00", 1500: "", 9000: ""} {
		cfg := testConfig(Full)
		cfg.MTU = mtu
		r := Decide(nodeRequest(t, testMAC), on67, cfg, testTable()).Reply
		if got := string(r.Options.Get(dhcpv4.OptionInterfaceMTU)); got != want {
			t.Errorf("MTU %d: option 26 is %x, want %x", mtu, got, want)
		}
	}
}

// TestReplyHasEverything holds the parts that some firmware insists on.
func TestReplyHasEverything(t *testing.T) {
	req := with(fixture(t, "ovmf-pxe-discover"), opt(82, 1, 2, 'a', 'b'))
	d := Decide(req, on67, testConfig(Full), testTable())
	r, err := dhcpv4.FromBytes(d.Reply.ToBytes()) // as the client will read it
	if err != nil {
		t.Fatal(err)
	}
	self := net.ParseIP(selfIP)
	check := func(what string, ok bool) {
		t.Helper()
		if !ok {
			t.Errorf("%s is wrong in\n%s", what, r.Summary())
		}
	}
	check("siaddr", r.ServerIPAddr.Equal(self))
	check("54", r.ServerIdentifier().Equal(self))
	check("66", r.TFTPServerName() == selfIP)
	check("67", r.BootFileNameOption() == "shimx64.efi")
	check("97", string(r.Options.Get(dhcpv4.OptionClientMachineIdentifier)) == string(req.Options.Get(dhcpv4.OptionClientMachineIdentifier)))
	check("1", r.SubnetMask().String() == "ffff0000")
	check("3", r.Router()[0].Equal(self))
	check("6", r.DNS()[0].Equal(self))
	check("12", r.HostName() == "node-525400aa0002")
	check("51", r.IPAddressLeaseTime(0) == time.Hour)
	check("82", string(r.Options.Get(dhcpv4.OptionRelayAgentInformation)) == "\x01\x02ab")
	check("xid", r.TransactionID == req.TransactionID)
	check("flags", r.Flags == req.Flags)

	bare := Decide(with(fixture(t, "ovmf-pxe-discover"), without(97)), on67, testConfig(Full), testTable())
	if bare.Reply == nil || bare.Reply.Options.Has(dhcpv4.OptionClientMachineIdentifier) {
		t.Error("a client without option 97 is not answered in kind")
	}
	node := Decide(nodeRequest(t, testMAC), on67, testConfig(Full), testTable())
	if node.Reply.Router() != nil || node.Reply.DNS() != nil {
		t.Error("a node was told of a router that does not route")
	}
	proxy := Decide(fixture(t, "ovmf-pxe-discover"), on67, testConfig(Proxy), testTable())
	for _, code := range []uint8{1, 3, 6, 12, 51, 58, 59} {
		if proxy.Reply.Options.Has(dhcpv4.GenericOptionCode(code)) {
			t.Errorf("a proxy offer carries option %d", code)
		}
	}
}

func TestLongBootFileIsRefusedInWords(t *testing.T) {
	cfg := testConfig(Full)
	cfg.Script = "http://" + strings.Repeat("x", 128)
	d := Decide(fixture(t, "ipxe-bios-discover"), on67, cfg, testTable())
	if d.Reply != nil || !strings.Contains(d.Reason, "longer than") {
		t.Errorf("got %v, %q", d.Reply, d.Reason)
	}
}

func TestConfigValidate(t *testing.T) {
	if err := testConfig(Full).Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Config){
		"mode":    func(c *Config) { c.Mode = "half" },
		"address": func(c *Config) { c.Address = netip.MustParsePrefix("fe80::1/64") },
		"lease":   func(c *Config) { c.Lease = 0 },
		"script":  func(c *Config) { c.Script = "" },
	} {
		c := testConfig(Full)
		spoil(c)
		if c.Validate() == nil {
			t.Errorf("a wrong %s passed", name)
		}
	}
	network := netip.MustParsePrefix("10.77.3.9/16")
	for pool, ok := range map[string]bool{
		"10.77.0.0/16": true, "10.77.128.0/17": true, "10.77.0.0/30": true,
		"10.77.0.0/31": false, "10.0.0.0/8": false, "10.78.0.0/17": false, "fe80::/64": false,
	} {
		if err := ValidatePool(netip.MustParsePrefix(pool), network); (err == nil) != ok {
			t.Errorf("pool %s: %v", pool, err)
		}
	}
}

func FuzzDecide(f *testing.F) {
	files, err := filepath.Glob("testdata/*.bin")
	if err != nil || len(files) == 0 {
		f.Fatal("no seeds", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, uint16(ServerPort))
		f.Add(data, uint16(PXEPort))
	}
	f.Add(nodeRequest(f, testMAC, as(dhcpv4.MessageTypeRequest)).ToBytes(), uint16(ServerPort))
	f.Fuzz(func(t *testing.T, data []byte, port uint16) {
		req, err := Decode(data)
		if err != nil {
			return
		}
		foreign := NewForeign(testConfig(Full).Address.Addr(), testMAC, time.Now)
		if s, ok := ObservationOf(req, on4011.From.Addr(), bcast.Addr()); ok {
			foreign.Observe(s)
		}
		if Decide(Enquiry(req, req.TransactionID), Arrival{Port: int(port), From: on4011.From}, testConfig(Full), testTable()).Reply != nil {
			t.Fatal("a boot host's enquiry is answered by another")
		}
		for _, mode := range []Mode{Full, Proxy, External} {
			table := testTable()
			client, _ := ether.MACOf(req.ClientHWAddr) // whose first choice is reserved for another
			reserved := Candidate(table.pool, client, 0)
			table.Reserve(table.pool, map[ether.MAC]netip.Addr{testMAC: reserved})
			d := Decide(req, Arrival{Port: int(port), From: on4011.From}, testConfig(mode), table)
			if d.Reason == "" {
				t.Fatal("a decision without a reason")
			}
			if d.Reply == nil {
				continue
			}
			r, err := dhcpv4.FromBytes(d.Reply.ToBytes())
			if err != nil {
				t.Fatalf("our reply cannot be read: %v", err)
			}
			if mode == External || d.Client.Kind == OtherClient {
				t.Fatalf("answered a %s in %s mode", d.Client.Kind, mode)
			}
			given, _ := netip.AddrFromSlice(r.YourIPAddr.To4())
			if given.IsUnspecified() {
				continue
			}
			if mode != Full || !assignable(table.pool, given) || given.String() == selfIP {
				t.Fatalf("%s mode gave %s", mode, given)
			}
			if given == reserved && d.Client.MAC != testMAC {
				t.Fatalf("%s, reserved for %s, was given to %s", given, testMAC, d.Client.MAC)
			}
		}
	})
}
