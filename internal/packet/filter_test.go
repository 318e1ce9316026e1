package packet

import (
	"net/netip"
	"testing"

	"golang.org/x/net/bpf"
)

// What the kernel would pass, by the machine of golang.org/x/net/bpf.
func TestFilters(t *testing.T) {
	passes := func(filter []bpf.Instruction, frame []byte) bool {
		t.Helper()
		vm, err := bpf.NewVM(filter)
		if err != nil {
			t.Fatal(err)
		}
		n, err := vm.Run(frame)
		return err == nil && n > 0
	}
	to := func(port uint16) Datagram {
		return Datagram{Src: netip.MustParseAddrPort("10.0.0.1:1000"), Dst: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.2"), port), Payload: []byte("payload")}
	}
	fragment, tcp := to(67).Marshal(), to(67).Marshal()
	fragment[etherHeader+6], tcp[etherHeader+9] = 0x20, 6
	for _, c := range []struct {
		name  string
		frame []byte
		one   bool // passes UDPTo(67)
		two   bool // passes UDPTo(67, 68)
	}{
		{"to the first port", to(67).Marshal(), true, true},
		{"to the second port", to(68).Marshal(), false, true},
		{"to another", to(69).Marshal(), false, false},
		{"a fragment", fragment, false, false},
		{"TCP", tcp, false, false},
		{"cut short", to(67).Marshal()[:etherHeader+ipHeader], false, false},
	} {
		if one, two := passes(UDPTo(67), c.frame), passes(UDPTo(67, 68), c.frame); one != c.one || two != c.two {
			t.Errorf("%s: passes one port %v, two %v; want %v, %v", c.name, one, two, c.one, c.two)
		}
	}
	ip, other := netip.MustParseAddr("10.77.3.4"), netip.MustParseAddr("10.77.3.5")
	if filter := ARPFrom(ip); !passes(filter, ARPAnnouncement(ip, ours()).Marshal()) ||
		passes(filter, ARPAnnouncement(other, ours()).Marshal()) || passes(filter, ARPProbe(ip, ours()).Marshal()) {
		t.Error("ARPFrom passes the wrong packets")
	}
}
