package dhcpclient

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/ether"
	"viver.lan/internal/packet"
)

func testMAC() ether.MAC { return ether.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x56} }

func testDiscover(t testing.TB) []byte {
	q, err := newDiscover(testMAC(), dhcpv4.TransactionID{1, 2, 3, 4}, netip.MustParseAddr("10.77.3.4"))
	if err != nil {
		t.Fatal(err)
	}
	return q.frame(testMAC())
}

// tcpdump reads our frames as a stranger.
func tcpdump(t *testing.T, frames ...[]byte) string {
	t.Helper()
	if _, err := exec.LookPath("tcpdump"); err != nil {
		t.Skip("tcpdump is not installed")
	}
	var b bytes.Buffer
	header := []any{uint32(0xa1b2c3d4), uint16(2), uint16(4), uint32(0), uint32(0), uint32(65535), uint32(1)}
	for _, v := range header {
		_ = binary.Write(&b, binary.LittleEndian, v)
	}
	for _, f := range frames {
		_ = binary.Write(&b, binary.LittleEndian, []uint32{0, 0, uint32(len(f)), uint32(len(f))})
		b.Write(f)
	}
	path := filepath.Join(t.TempDir(), "frames.pcap")
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("tcpdump", "-r", path, "-n", "-e", "-vv").CombinedOutput()
	if err != nil {
		t.Fatalf("tcpdump: %v\n%s", err, out)
	}
	return string(out)
}

func TestFramesAsTcpdumpReadsThem(t *testing.T) {
	ip := netip.MustParseAddr("10.77.3.4")
	lease := bootnet.Lease{Address: netip.PrefixFrom(ip, 16), Server: netip.MustParseAddr("10.77.0.1"), ServerMAC: ether.MAC{2, 0, 0, 0, 0, 1}}
	renewal, err := newRenewal(testMAC(), dhcpv4.TransactionID{1, 2, 3, 4}, lease, false)
	if err != nil {
		t.Fatal(err)
	}
	out := tcpdump(t, testDiscover(t), renewal.frame(testMAC()),
		packet.ARPProbe(ip, testMAC()).Marshal(), packet.ARPAnnouncement(ip, testMAC()).Marshal())
	for _, want := range []string{
		"0.0.0.0.68 > 255.255.255.255.67: [udp sum ok] BOOTP/DHCP, Request from 52:54:00:12:34:56",
		"DHCP-Message (53), length 1: Discover",
		`Vendor-Class (60), length 5: "VIVER"`,
		"Client-ID (61), length 7: ether 52:54:00:12:34:56",
		"Requested-IP (50), length 4: 10.77.3.4",
		"52:54:00:12:34:56 > 02:00:00:00:00:01",
		"10.77.3.4.68 > 10.77.0.1.67: [udp sum ok]",
		"Client-IP 10.77.3.4",
		"Request who-has 10.77.3.4 tell 0.0.0.0",
		"who-has 10.77.3.4 tell 10.77.3.4",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("tcpdump does not say %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "bad") || strings.Contains(out, "incorrect") {
		t.Errorf("tcpdump finds a fault:\n%s", out)
	}
}

// FuzzReply feeds whole frames to everything that reads what a server sent.
func FuzzReply(f *testing.F) {
	xid := dhcpv4.TransactionID{1, 2, 3, 4}
	f.Add(testAck(f, nil).frame)
	f.Add(testAck(f, func(m *dhcpv4.DHCPv4) {
		m.UpdateOption(dhcpv4.OptMessageType(dhcpv4.MessageTypeOffer))
		m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClasslessStaticRoute, []byte{0, 192, 168, 5, 9, 16, 10, 1, 192, 168, 5, 2}))
		m.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, []byte{0x23, 0x28}))
	}).frame)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, ok := parseReply(b, testMAC(), xid)
		if !ok {
			return
		}
		n := newNegotiation(testMAC(), netip.Addr{}, slog.New(slog.DiscardHandler), 0)
		n.receive(r, 0)
		if _, _, err := n.next(0); err != nil {
			t.Errorf("nothing to say to %s: %v", r.message.Summary(), err)
		}
		l, err := leaseFrom(r, 0)
		if err != nil {
			return
		}
		r.defects()
		for _, route := range l.Routes {
			if !harmless(route, l.Address) || len(l.Routes) > maxRoutes {
				t.Errorf("a route that takes the way to the root disk: %s", route)
			}
		}
		if l.MTU != 0 && (l.MTU < bootnet.MinMTU || l.MTU > bootnet.MaxMTU) {
			t.Errorf("an MTU of %d", l.MTU)
		}
		if !l.Address.IsValid() || l.Expires != 0 && !(0 < l.Renew && l.Renew < l.Rebind && l.Rebind < l.Expires && l.Expires >= minLease) {
			t.Errorf("a lease that cannot be kept: %+v", l)
		}
		if strings.ContainsAny(l.Domain+l.Hostname, "\x00`$; /\n") {
			t.Errorf("unsafe names: %+v", l)
		}
		offerIn(r)
	})
}
