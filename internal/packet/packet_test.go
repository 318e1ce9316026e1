package packet

import (
	"bytes"
	"net/netip"
	"testing"

	"viver.lan/internal/ether"
)

func ours() ether.MAC { return ether.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x56} }

func testDatagram() []byte {
	return Datagram{
		SrcMAC: ours(), DstMAC: BroadcastMAC(),
		Src: netip.MustParseAddrPort("0.0.0.0:68"), Dst: netip.MustParseAddrPort("255.255.255.255:67"), Payload: bytes.Repeat([]byte("payload "), 30),
	}.Marshal()
}

func TestParseDatagram(t *testing.T) {
	whole := testDatagram()
	d, err := ParseDatagram(append(bytes.Clone(whole), 0, 0, 0)) // padding of short frames
	if err != nil || d.Src.Port() != 68 || d.Dst.Port() != 67 || d.SrcMAC != ours() || len(d.Payload) != len(whole)-42 {
		t.Fatalf("parseDatagram = %+v, %v", d, err)
	}
	for name, damage := range map[string]func(b []byte) []byte{
		"truncated":     func(b []byte) []byte { return b[:41] },
		"cut short":     func(b []byte) []byte { return b[:len(b)-1] },
		"IPv6":          func(b []byte) []byte { b[12], b[13] = 0x86, 0xdd; return b },
		"version":       func(b []byte) []byte { b[14] = 0x65; return b },
		"header length": func(b []byte) []byte { b[14] = 0x4f; return b },
		"TCP":           func(b []byte) []byte { b[23] = 6; return b },
		"fragment":      func(b []byte) []byte { b[20] = 0x20; return b },
		"bit flip":      func(b []byte) []byte { b[30] ^= 1; return b },
		"UDP length":    func(b []byte) []byte { b[38] = 0xff; return b },
	} {
		if _, err := ParseDatagram(damage(bytes.Clone(whole))); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestARPTakes(t *testing.T) {
	us, other := ours(), ether.MAC{2, 0, 0, 0, 0, 1}
	ip, elsewhere := netip.MustParseAddr("10.77.3.4"), netip.MustParseAddr("10.77.9.9")
	for _, c := range []struct {
		name string
		p    ARP
		want bool
		// conflicts is the same when the address is ours already
		conflicts bool
	}{
		{"reply of the owner", ARP{Op: ARPReply, SenderMAC: other, SenderIP: ip, TargetMAC: us, TargetIP: netip.IPv4Unspecified()}, true, true},
		{"request of the owner", ARP{Op: ARPRequest, SenderMAC: other, SenderIP: ip, TargetIP: elsewhere}, true, true},
		{"announcement", ARPAnnouncement(ip, other), true, true},
		{"our own announcement, reflected", ARPAnnouncement(ip, us), false, false},
		{"probe at the same time", ARPProbe(ip, other), true, false},
		{"our own probe, reflected", ARPProbe(ip, us), false, false},
		{"probe for another address", ARPProbe(elsewhere, other), false, false},
		{"somebody looks for the address", ARP{Op: ARPRequest, SenderMAC: other, SenderIP: elsewhere, TargetIP: ip}, false, false},
	} {
		if got := c.p.Conflicts(ip, us); got != c.conflicts {
			t.Errorf("%s: conflicts = %v, want %v", c.name, got, c.conflicts)
		}
		if got := c.p.ConflictsWhileProbing(ip, us); got != c.want {
			t.Errorf("%s: takes = %v, want %v", c.name, got, c.want)
		}
	}
}

func FuzzParseARP(f *testing.F) {
	f.Add(ARPProbe(netip.MustParseAddr("10.77.3.4"), ours()).Marshal())
	f.Add(ARPAnnouncement(netip.MustParseAddr("10.77.3.4"), ours()).Marshal())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseARP(b)
		if err != nil {
			return
		}
		back, err := ParseARP(p.Marshal())
		if err != nil || back != p {
			t.Errorf("%+v came back as %+v, %v", p, back, err)
		}
	})
}

func FuzzParseDatagram(f *testing.F) {
	f.Add(testDatagram())
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseDatagram(b)
		if err != nil {
			return
		}
		back, err := ParseDatagram(d.Marshal())
		if err != nil || back.Src != d.Src || back.Dst != d.Dst || !bytes.Equal(back.Payload, d.Payload) {
			t.Errorf("%+v came back as %+v, %v", d, back, err)
		}
	})
}
