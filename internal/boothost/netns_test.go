package boothost

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/manifest"
)

func TestNetnsOtherClientsAreLeftAlone(t *testing.T) {
	if !inNetns(t, "udhcpc", "dhclient") {
		return
	}
	b := newBench(t, nil)
	if out, err := b.tryAt("udhcpc", "-f", "-i", "pc", "-n", "-q", "-t", "2", "-T", "1", "-s", "/bin/true"); err == nil {
		t.Errorf("udhcpc got an answer:\n%s", out)
	}
	if n := b.requests(dhcp.OtherClient, "none"); n < 2 {
		t.Errorf("only %v of udhcpc's requests were heard", n)
	}
	before := b.requests(dhcp.OtherClient, "none")
	conf := filepath.Join(b.dir, "dhclient.conf")
	if err := os.WriteFile(conf, []byte("timeout 4;\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	out, _ := b.tryAt("dhclient", "-4", "-1", "-d", "-cf", conf, "-lf", filepath.Join(b.dir, "leases"), "-pf", filepath.Join(b.dir, "pid"), "-sf", "/bin/true", "pc")
	if strings.Contains(out, "DHCPOFFER of") || !strings.Contains(out, "DHCPDISCOVER") {
		t.Errorf("dhclient:\n%s", out)
	}
	if b.requests(dhcp.OtherClient, "none") <= before {
		t.Error("dhclient's requests were not heard")
	}
	if got := b.host.Status().Machines; len(got) != 0 {
		t.Errorf("other clients are remembered: %v", got)
	}
}

func TestNetnsNodeKeepsItsAddress(t *testing.T) {
	if !inNetns(t) {
		return
	}
	b := newBench(t, nil)
	class := dhcpv4.WithOption(dhcpv4.OptClassIdentifier(dhcp.NodeClass + " test"))
	var got [2]*dhcpv4.DHCPv4
	b.speak(func(ask func(p *dhcpv4.DHCPv4, to string), answer func() *dhcpv4.DHCPv4) {
		hw, _ := net.ParseMAC(clientMAC)
		for i := range got {
			discover, err := dhcpv4.NewDiscovery(hw, class)
			if err != nil {
				t.Fatal(err)
			}
			ask(discover, everyone)
			request, err := dhcpv4.NewRequestFromOffer(answer(), class)
			if err != nil {
				t.Fatal(err)
			}
			ask(request, everyone)
			got[i] = answer()
		}
	})
	first := got[0]
	if !first.YourIPAddr.Equal(got[1].YourIPAddr) {
		t.Errorf("address %s became %s", first.YourIPAddr, got[1].YourIPAddr)
	}
	if !first.ServerIdentifier().Equal(net.ParseIP(selfIP)) || first.HostName() != "node-525400aa0020" {
		t.Errorf("lease: %s", first.Summary())
	}
	mac, _ := ether.ParseMAC(clientMAC)
	want := dhcp.Candidate(netip.MustParsePrefix("10.77.0.0/16"), mac, 0)
	if first.YourIPAddr.String() != want.String() {
		t.Errorf("address %s, another host would give %s", first.YourIPAddr, want)
	}

	// A renewal is unicast from the address and answered to it.
	b.at("ip", "addr", "add", want.String()+"/16", "dev", "pc")
	b.speak(func(ask func(p *dhcpv4.DHCPv4, to string), answer func() *dhcpv4.DHCPv4) {
		renew, err := dhcpv4.NewRenewFromAck(first, class)
		if err != nil {
			t.Fatal(err)
		}
		ask(renew, selfIP+":67")
		if ack := answer(); ack.MessageType() != dhcpv4.MessageTypeAck || !ack.YourIPAddr.Equal(first.YourIPAddr) {
			t.Errorf("renewal: %s", ack.Summary())
		}
	})
	if m := b.host.Status().Machines; len(m) != 1 || m[0].Client != dhcp.Node || m[0].Address != want {
		t.Errorf("machines: %+v", m)
	}
}

// TestNetnsReservation reserves an address that another machine asks for.
func TestNetnsReservation(t *testing.T) {
	if !inNetns(t) {
		return
	}
	self, reserved := netip.MustParsePrefix(selfIP+"/16"), netip.MustParseAddr("10.77.0.7")
	client, err := ether.ParseMAC(clientMAC)
	if err != nil {
		t.Fatal(err)
	}
	other := ether.MAC{2, 0, 0, 0, 0, 9}
	table := dhcp.NewLeases(self.Masked(), time.Now, self.Addr())
	b := newBench(t, func(c *Config) { c.Table = table })
	class := dhcpv4.WithOption(dhcpv4.OptClassIdentifier(dhcp.NodeClass + " test"))
	b.speak(func(ask func(p *dhcpv4.DHCPv4, to string), answer func() *dhcpv4.DHCPv4) {
		remembers := func(m ether.MAC, addr netip.Addr) *dhcpv4.DHCPv4 {
			t.Helper()
			p, err := dhcpv4.New(dhcpv4.WithHwAddr(net.HardwareAddr(m[:])), dhcpv4.WithMessageType(dhcpv4.MessageTypeRequest),
				dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(addr.AsSlice())), class)
			if err != nil {
				t.Fatal(err)
			}
			ask(p, everyone)
			a := answer()
			if a.TransactionID != p.TransactionID {
				t.Fatalf("not the answer to %s: %s", p.Summary(), a.Summary())
			}
			return a
		}
		obtain := func(m ether.MAC) netip.Addr {
			t.Helper()
			p, err := dhcpv4.NewDiscovery(net.HardwareAddr(m[:]), class)
			if err != nil {
				t.Fatal(err)
			}
			ask(p, everyone)
			addr, _ := netip.AddrFromSlice(answer().YourIPAddr.To4())
			if ack := remembers(m, addr); ack.MessageType() != dhcpv4.MessageTypeAck {
				t.Errorf("%s was offered %s and then refused it: %s", m, addr, ack.Summary())
			}
			return addr
		}
		if ack := remembers(other, reserved); ack.MessageType() != dhcpv4.MessageTypeAck {
			t.Errorf("a free address is refused: %s", ack.Summary())
		}
		if ignored := table.Reserve(self.Masked(), map[ether.MAC]netip.Addr{client: reserved}); len(ignored) > 0 {
			t.Fatal(ignored)
		}
		if nak := remembers(other, reserved); nak.MessageType() != dhcpv4.MessageTypeNak {
			t.Errorf("whoever has the address keeps it: %s", nak.Summary())
		}
		if got := obtain(other); got == reserved {
			t.Errorf("%s was given to another machine again", got)
		}
		if got := obtain(client); got != reserved {
			t.Errorf("the machine got %s, want its reservation %s", got, reserved)
		}
		if nak := remembers(other, reserved); nak.MessageType() != dhcpv4.MessageTypeNak {
			t.Errorf("the reserved address was given to another machine: %s", nak.Summary())
		}
	})
	if n := b.requests(dhcp.Node, "NAK"); n != 2 {
		t.Errorf("%v refusals, want 2", n)
	}
}

// TestNetnsAnotherServerComesAndGoes asks a host beside which another server comes,
// and goes again: no new address meanwhile, the old ones stay, and a packet without
// END or from a relay is nothing special.
func TestNetnsAnotherServerComesAndGoes(t *testing.T) {
	if !inNetns(t) {
		return
	}
	var other atomic.Bool
	enquiries := make(chan *dhcpv4.DHCPv4, 16)
	b := newBench(t, func(c *Config) {
		c.OtherServer, c.Enquire = other.Load, func(p *dhcpv4.DHCPv4) { enquiries <- p }
	})
	class := dhcpv4.WithOption(dhcpv4.OptClassIdentifier(dhcp.NodeClass + " test"))
	hw, _ := net.ParseMAC(clientMAC)
	firmware := b.recorded("ovmf-pxe-discover")
	b.speak(func(ask func(p *dhcpv4.DHCPv4, to string), answer func() *dhcpv4.DHCPv4) {
		reply := func(p *dhcpv4.DHCPv4, want dhcpv4.MessageType, address bool) *dhcpv4.DHCPv4 {
			t.Helper()
			ask(p, everyone)
			a := answer()
			if a.TransactionID != p.TransactionID || a.MessageType() != want || a.YourIPAddr.IsUnspecified() == address {
				t.Errorf("answer to %s: %s", p.Summary(), a.Summary())
			}
			return a
		}
		packet := func(kind dhcpv4.MessageType, more ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
			p, err := dhcpv4.New(append(more, dhcpv4.WithHwAddr(hw), dhcpv4.WithMessageType(kind), class)...)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		reply(firmware, dhcpv4.MessageTypeOffer, true)
		if p := <-enquiries; p.TransactionID != firmware.TransactionID {
			t.Errorf("an enquiry for %s", p.Summary())
		}
		offer := reply(packet(dhcpv4.MessageTypeDiscover), dhcpv4.MessageTypeOffer, true)
		wanted := dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(offer.YourIPAddr))
		named := dhcpv4.WithOption(dhcpv4.OptServerIdentifier(net.ParseIP(selfIP)))
		other.Store(true)
		reply(packet(dhcpv4.MessageTypeRequest, wanted, named), dhcpv4.MessageTypeNak, false)
		reply(firmware, dhcpv4.MessageTypeOffer, false)
		if len(enquiries) > 0 || b.host.Status().Mode != dhcp.Proxy {
			t.Errorf("%d enquiries, %s mode", len(enquiries), b.host.Status().Mode)
		}
		other.Store(false)
		reply(packet(dhcpv4.MessageTypeRequest, wanted, named), dhcpv4.MessageTypeAck, true)
		other.Store(true)
		relayed := packet(dhcpv4.MessageTypeDiscover)
		relayed.GatewayIPAddr = net.ParseIP("10.9.0.1")
		ask(relayed, everyone)                            // not answered, nor is
		ask(packet(dhcpv4.MessageTypeDiscover), everyone) // a node that has no address, but
		ack := reply(packet(dhcpv4.MessageTypeRequest, wanted), dhcpv4.MessageTypeAck, true)
		if !ack.YourIPAddr.Equal(offer.YourIPAddr) {
			t.Errorf("address %s became %s", offer.YourIPAddr, ack.YourIPAddr)
		}
	})
}

// TestNetnsProxy sends OVMF's own packet and reads what comes back on the
// wire: an OFFER without an address, and nothing at all on REQUEST.
func TestNetnsProxy(t *testing.T) {
	if !inNetns(t) {
		return
	}
	b := newBench(t, func(c *Config) { c.Mode = dhcp.Proxy })
	data, err := os.ReadFile("../dhcp/testdata/ovmf-pxe-discover.bin")
	if err != nil {
		t.Fatal(err)
	}
	discover, err := dhcpv4.FromBytes(data)
	if err != nil {
		t.Fatal(err)
	}
	b.at("ip", "addr", "add", "10.77.0.50/16", "dev", "pc")
	b.speak(func(ask func(p *dhcpv4.DHCPv4, to string), answer func() *dhcpv4.DHCPv4) {
		ask(discover, everyone)
		offer := answer()
		if offer.MessageType() != dhcpv4.MessageTypeOffer || !offer.YourIPAddr.IsUnspecified() || offer.BootFileName != "shimx64.efi" {
			t.Errorf("offer: %s", offer.Summary())
		}
		request := *discover
		request.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeRequest))
		request.UpdateOption(dhcpv4.OptRequestedIPAddress(net.ParseIP("10.77.0.50")))
		ask(&request, everyone) // must stay unanswered:
		ask(&request, selfIP+":4011")
		ack := answer() // so this is port 4011's
		if ack.MessageType() != dhcpv4.MessageTypeAck || ack.BootFileName != "shimx64.efi" {
			t.Errorf("answer of port 4011: %s", ack.Summary())
		}
	})
	// The two ports answer independently: what port 67 ignored may be noted
	// after port 4011's answer is here.
	for deadline := time.Now().Add(patience); b.requests(dhcp.PXE, "none") != 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%v requests on port 67 unanswered, want 1", b.requests(dhcp.PXE, "none"))
		}
	}
	if m := b.host.Status().Machines; len(m) != 1 || m[0].Address.String() != "10.77.0.50" {
		t.Errorf("machines: %+v", m)
	}
}

func TestNetnsFilesToOtherClients(t *testing.T) {
	if !inNetns(t, "tftp", "atftp", "curl") {
		return
	}
	b := newBench(t, nil)
	b.at("ip", "addr", "add", "10.77.0.50/16", "dev", "pc")
	hash := b.image.manifest.Infohash.String()
	inImage := func(name string) string { return "boot/" + hash + "/" + name }
	got := func(want []byte) {
		t.Helper()
		data, err := os.ReadFile(filepath.Join(b.dir, "got"))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(data, want) {
			t.Errorf("got %d bytes, want %d, or others", len(data), len(want))
		}
		os.Remove(filepath.Join(b.dir, "got"))
	}
	for name, want := range map[string][]byte{
		"undionly.kpxe":              b.image.files["boot/undionly.kpxe"],
		"shimx64.efi":                b.image.files["boot/shimx64.efi"], // exactly one block
		"//grubx64.efi":              b.image.files["boot/grubx64.efi"],
		inImage(manifest.Kernel):     b.image.files[manifest.Kernel],
		inImage("boot//shimx64.efi"): b.image.files["boot/shimx64.efi"],
		"/boot/" + hash + "/vmlinuz": b.image.files[manifest.Kernel],
	} {
		b.at("tftp", "-m", "binary", selfIP, "-c", "get", name, "got")
		got(want)
		b.at("atftp", "--get", "--option", "blksize 1428", "--option", "tsize", "-l", "got", "-r", name, selfIP)
		got(want)
	}
	b.at("curl", "-sf", "-o", "got", "tftp://"+selfIP+"//grubx64.efi")
	got(b.image.files["boot/grubx64.efi"])
	// However large a block is asked for, it goes into one frame.
	if out := b.at("curl", "-sfv", "--tftp-blksize", "60000", "-o", "got", "tftp://"+selfIP+"/grubx64.efi"); !strings.Contains(out, "(1468)") {
		t.Errorf("blocks of 60000 bytes were asked for:\n%s", out)
	}
	got(b.image.files["boot/grubx64.efi"])
	fragments := func() string { return strings.Fields(b.run("nstat", "-asz", "IpFragCreates"))[2] }
	if n := fragments(); n != "0" {
		t.Errorf("%s packets were fragments", n)
	}
	// Also when frames become smaller while the host serves.
	b.run("ip", "link", "set", "boot", "mtu", "1280")
	var before string
	b.eventually("blocks that fit the link", func() bool {
		before = fragments()
		out := b.at("curl", "-sfv", "--tftp-blksize", "60000", "-o", "got", "tftp://"+selfIP+"/grubx64.efi")
		return strings.Contains(out, "(1248)")
	})
	got(b.image.files["boot/grubx64.efi"])
	if n := fragments(); n != before {
		t.Errorf("%s packets were fragments, then %s", before, n)
	}
	b.run("ip", "link", "set", "boot", "mtu", "1500")
	// iPXE and GRUB read over 32 MB by TFTP: the block number wraps. Here it
	// wraps with small blocks.
	b.at("tftp", "-m", "binary", selfIP, "-c", "get", inImage(manifest.Initramfs), "got")
	got(b.image.files[manifest.Initramfs])

	for _, name := range []string{"nonsense", "../../../etc/passwd", "/etc/passwd", inImage(manifest.Root), "revocations_sbat.efi"} {
		out, _ := b.tryAt("tftp", "-m", "binary", selfIP, "-c", "get", name, "got")
		if !strings.Contains(out, "not found") {
			t.Errorf("tftp %s: %q", name, out)
		}
		os.Remove(filepath.Join(b.dir, "got"))
	}
	if out, _ := b.tryAt("sh", "-c", "echo x >put; tftp -m binary "+selfIP+" -c put put undionly.kpxe"); !strings.Contains(out, "Error code") {
		t.Errorf("tftp put: %q", out)
	}

	url := "http://" + selfIP + "/"
	b.at("curl", "-sf", "-o", "got", url+inImage(manifest.Initramfs))
	got(b.image.files[manifest.Initramfs])
	b.at("curl", "-sf", "-o", "got", "-r", "1000000-", url+inImage(manifest.Root))
	got(b.image.files[manifest.Root][1000000:])
	if out := b.at("curl", "-sfI", url+inImage(manifest.Kernel)); !strings.Contains(out, "200 OK") || !strings.Contains(out, "Content-Length: 3145745") {
		t.Errorf("HEAD:\n%s", out)
	}
	if out := b.at("curl", "-s", "--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", url+"boot/../../../etc/passwd"); out != "404" {
		t.Errorf("traversal: %s", out)
	}
	if out := b.at("curl", "-s", "-X", "PUT", "-d", "x", "-o", "/dev/null", "-w", "%{http_code}", url+"boot.ipxe"); out != "405" {
		t.Errorf("PUT: %s", out)
	}
	// The node itself reaches its page too.
	if out := b.run("curl", "-sf", url+"status"); !strings.Contains(out, hash) {
		t.Errorf("status: %s", out)
	}
}

// TestNetnsRouterAdvertisement lets the client's kernel be the judge: it marks
// a neighbour as router only after a valid advertisement, and takes no route
// and no address from one with lifetime 0 and no prefix.
func TestNetnsRouterAdvertisement(t *testing.T) {
	if !inNetns(t) {
		return
	}
	if _, err := os.Stat("/proc/sys/net/ipv6"); err != nil {
		t.Skip("this kernel has no IPv6")
	}
	b := newBench(t, nil)
	b.eventually("the kernel to learn of the router", func() bool {
		return strings.Contains(b.at("ip", "-6", "neigh", "show", "dev", "pc"), "router")
	})
	if out := b.at("ip", "-6", "route", "show", "default"); out != "" {
		t.Errorf("a default route: %s", out)
	}
	if out := b.at("ip", "-6", "addr", "show", "dev", "pc", "scope", "global"); out != "" {
		t.Errorf("an address: %s", out)
	}
}

func TestNetnsTakenPortIsSaid(t *testing.T) {
	if !inNetns(t) {
		return
	}
	b := newBench(t, nil)
	cfg := testConfig(t)
	cfg.Interface, cfg.Image = b.host.cfg.Interface, b.image
	err := newHost(t, cfg).ServeNetboot(t.Context())
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "tftp on boot") {
		t.Errorf("a second host on the same port: %v", err)
	}
}
