package boothost

import (
	"encoding/hex"
	"net"
	"testing"

	"golang.org/x/net/ipv6"
)

func TestAdvertisement(t *testing.T) {
	got, err := advertisement(net.HardwareAddr{0x52, 0x54, 0, 0xff, 0, 1})
	if err != nil {
		t.Fatal(err)
	}
	// type 134, checksum left to the kernel, lifetime 0, then our link address
	if want := "86000000" + "00000000" + "0000000000000000" + "0101525400ff0001"; hex.EncodeToString(got) != want {
		t.Errorf("got  %x\nwant %s", got, want)
	}
}

func TestSolicitor(t *testing.T) {
	rs := []byte{133, 0, 0, 0, 0, 0, 0, 0}
	link := &net.IPAddr{IP: net.ParseIP("fe80::1")}
	for _, tc := range []struct {
		name   string
		packet []byte
		hops   int
		from   net.Addr
		want   string
	}{
		{"iPXE", rs, 255, link, "fe80::1"},
		{"no address yet", rs, 255, &net.IPAddr{IP: net.IPv6unspecified}, "ff02::1"},
		{"through a router", rs, 254, link, ""},
		{"not from the link", rs, 255, &net.IPAddr{IP: net.ParseIP("2001:db8::1")}, ""},
		{"cut short", rs[:7], 255, link, ""},
		{"empty", nil, 255, link, ""},
		{"an advertisement", []byte{134, 0, 0, 0, 0, 0, 0, 0}, 255, link, ""},
		{"a code", []byte{133, 1, 0, 0, 0, 0, 0, 0}, 255, link, ""},
		{"another kind of sender", rs, 255, &net.UDPAddr{}, ""},
	} {
		to, ok := solicitor(tc.packet, &ipv6.ControlMessage{HopLimit: tc.hops}, tc.from)
		if ok != (tc.want != "") || ok && to.String() != tc.want {
			t.Errorf("%s: answer to %v, %v", tc.name, to, ok)
		}
	}
	if _, ok := solicitor(rs, nil, link); ok {
		t.Error("answered without knowing the hop limit")
	}
}

func FuzzSolicitor(f *testing.F) {
	f.Add([]byte{133, 0, 0, 0, 0, 0, 0, 0}, 255, []byte(net.ParseIP("fe80::1")))
	f.Add([]byte{133, 0}, 255, []byte(net.IPv6unspecified))
	f.Fuzz(func(t *testing.T, packet []byte, hops int, from []byte) {
		to, ok := solicitor(packet, &ipv6.ControlMessage{HopLimit: hops}, &net.IPAddr{IP: from})
		if ok && !to.IP.IsLinkLocalUnicast() && !to.IP.Equal(net.IPv6linklocalallnodes) {
			t.Errorf("an answer leaves the link, to %v", to)
		}
	})
}
