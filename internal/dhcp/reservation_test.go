package dhcp

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/ether"
)

// exchange goes through DISCOVER and REQUEST with a table, as a machine that
// has no address does, and returns the one that it gets.
func exchange(t *testing.T, table *Leases, m ether.MAC) netip.Addr {
	t.Helper()
	d := Decide(nodeRequest(t, m), on67, testConfig(Full), table)
	if d.Reply == nil {
		t.Fatalf("%s: %s", m, d.Reason)
	}
	addr, _ := netip.AddrFromSlice(d.Reply.YourIPAddr.To4())
	if d := requests(t, table, m, addr); d.Reply.MessageType() != dhcpv4.MessageTypeAck {
		t.Fatalf("%s was offered %s, then: %s", m, addr, d.Reason)
	}
	return addr
}

// requests asks for one address, as a machine does that has it or remembers it.
func requests(t *testing.T, table *Leases, m ether.MAC, addr netip.Addr) Decision {
	t.Helper()
	d := Decide(nodeRequest(t, m, as(dhcpv4.MessageTypeRequest), wants(addr)), on67, testConfig(Full), table)
	if d.Reply == nil {
		t.Fatalf("%s asks for %s: %s", m, addr, d.Reason)
	}
	return d
}

func refused(t *testing.T, table *Leases, m ether.MAC, addr netip.Addr, why string) {
	t.Helper()
	if d := requests(t, table, m, addr); d.Reply.MessageType() != dhcpv4.MessageTypeNak || !strings.Contains(d.Reason, why) {
		t.Errorf("%s asks for %s: %s, want a NAK that says %q", m, addr, d.Reason, why)
	}
}

func reserve(t *testing.T, table *Leases, reserved map[ether.MAC]netip.Addr) {
	t.Helper()
	if ignored := table.Reserve(pool16, reserved); len(ignored) > 0 {
		t.Fatal(ignored)
	}
}

func TestReservationIsKept(t *testing.T) {
	mine, other := machine(1), machine(2)
	for _, tc := range []struct{ name, addr string }{
		{"outside of the pool", "10.77.0.7"},
		{"inside of it", "10.77.200.7"},
	} {
		now, addr := testNow, netip.MustParseAddr(tc.addr)
		table := newTable("10.77.128.0/17", &now, netip.MustParseAddr(selfIP))
		reserve(t, table, map[ether.MAC]netip.Addr{mine: addr})
		refused(t, table, other, addr, "reserved for another")
		if got := exchange(t, table, mine); got != addr {
			t.Errorf("%s: the machine got %s, want %s", tc.name, got, addr)
		}
		refused(t, table, other, addr, "reserved for another")
		refused(t, table, mine, netip.MustParseAddr("10.77.200.8"), "not yours, "+tc.addr)
		if got := exchange(t, table, other); got == addr {
			t.Errorf("%s: the other machine got %s too", tc.name, got)
		}
		now = now.Add(100 * time.Hour)
		if d := requests(t, table, mine, addr); d.Reply.MessageType() != dhcpv4.MessageTypeAck {
			t.Errorf("%s, renewed: %s", tc.name, d.Reason)
		}
		if len(table.byMAC) != 2 || len(table.byAddr) != 2 {
			t.Errorf("%s: leases %v", tc.name, table.List())
		}
	}
}

// TestReservationOfAnAddressInUse moves two machines: one has what is reserved for the// other. At no time both have it.
func TestReservationOfAnAddressInUse(t *testing.T) {
	now := testNow
	table := newTable("10.77.0.0/16", &now)
	mine, other := machine(1), machine(2)
	before, wanted := exchange(t, table, mine), exchange(t, table, other)
	reserve(t, table, map[ether.MAC]netip.Addr{mine: wanted})
	if d := requests(t, table, mine, before); d.Reply.MessageType() != dhcpv4.MessageTypeAck {
		t.Errorf("there is no other address yet: %s", d.Reason)
	}
	refused(t, table, mine, wanted, "not yours")
	refused(t, table, other, wanted, "reserved for another")
	if got := exchange(t, table, mine); got != before {
		t.Errorf("%s was given while the other machine asks for another", got)
	}
	moved := exchange(t, table, other)
	if moved == wanted || moved == before {
		t.Errorf("the other machine moved to %s", moved)
	}
	refused(t, table, mine, before, "not yours, "+wanted.String())
	if got := exchange(t, table, mine); got != wanted {
		t.Errorf("the machine got %s, want %s", got, wanted)
	}
	if got := exchange(t, table, other); got != moved {
		t.Errorf("the other machine's %s became %s", moved, got)
	}
}

// TestReservationOfAnAddressLeftBehind waits for the end of the lease when the machine
// that had the address is gone.
func TestReservationOfAnAddressLeftBehind(t *testing.T) {
	now := testNow
	table := newTable("10.77.0.0/16", &now)
	mine, gone := machine(1), machine(2)
	wanted := exchange(t, table, gone)
	reserve(t, table, map[ether.MAC]netip.Addr{mine: wanted})
	before := exchange(t, table, mine)
	if before == wanted {
		t.Fatalf("%s was given before its lease was over", wanted)
	}
	now = now.Add(testConfig(Full).Lease + time.Second)
	refused(t, table, mine, before, "not yours, "+wanted.String())
	if got := exchange(t, table, mine); got != wanted {
		t.Errorf("the machine got %s, want %s", got, wanted)
	}
	if got := exchange(t, table, gone); got == wanted {
		t.Errorf("%s was given to both", got)
	}
	if len(table.byMAC) != 2 || len(table.byAddr) != 2 {
		t.Errorf("leases: %v", table.List())
	}
}

// TestReservationIsProbed probes a reserved address like any new one.
func TestReservationIsProbed(t *testing.T) {
	now := testNow
	table := newTable("10.77.0.0/16", &now)
	toProbe := func() (netip.Addr, bool) {
		_, addr, ok := AddressToProbe(nodeRequest(t, testMAC), on67, testConfig(Full), table)
		return addr, ok
	}
	before := exchange(t, table, testMAC)
	wanted := netip.MustParseAddr("10.77.0.7")
	reserve(t, table, map[ether.MAC]netip.Addr{testMAC: wanted})
	if addr, ok := toProbe(); !ok || addr != wanted {
		t.Errorf("a probe of %s, %v; want one of %s", addr, ok, wanted)
	}
	table.Probed(testMAC, wanted, machine(9)) // by hand, say
	if addr, ok := toProbe(); ok || addr != before {
		t.Errorf("%s, %v after the address was found in use", addr, ok)
	}
	if got := exchange(t, table, testMAC); got != before {
		t.Errorf("got %s, want the old one, %s", got, before)
	}
	now = now.Add(declineTime + time.Second)
	if addr, ok := toProbe(); !ok || addr != wanted {
		t.Errorf("later a probe of %s, %v; want one of %s", addr, ok, wanted)
	}
	table.Probed(testMAC, wanted, ether.MAC{})
	if addr, ok := toProbe(); ok || addr != wanted {
		t.Errorf("%s, %v after the address was found free", addr, ok)
	}
	if got := exchange(t, table, testMAC); got != wanted {
		t.Errorf("got %s, want %s", got, wanted)
	}
	if _, ok := toProbe(); ok {
		t.Error("another probe of the machine's own address")
	}
}

func TestReservationTakesAnOffer(t *testing.T) {
	now := testNow
	table := newTable("10.77.0.0/16", &now)
	mine, other := machine(1), machine(2)
	wanted := mustFind(t, table, other)
	reserve(t, table, map[ether.MAC]netip.Addr{mine: wanted})
	refused(t, table, other, wanted, "reserved for another")
	if got := exchange(t, table, mine); got != wanted {
		t.Errorf("got %s, want %s", got, wanted)
	}
}

func TestReservationTakenBack(t *testing.T) {
	now := testNow
	table := newTable("10.77.0.0/16", &now)
	mine, other, addr := machine(1), machine(2), netip.MustParseAddr("10.77.0.7")
	reserve(t, table, map[ether.MAC]netip.Addr{mine: addr})
	exchange(t, table, mine)
	reserve(t, table, nil)
	refused(t, table, other, addr, "belongs to another")
	if got := exchange(t, table, mine); got != addr {
		t.Errorf("the machine's %s became %s", addr, got)
	}
}

func TestReservationsIgnored(t *testing.T) {
	now := testNow
	self := netip.MustParseAddr(selfIP)
	for _, tc := range []struct {
		name     string
		reserved map[ether.MAC]string
		want     string // in what is said
		kept     int
	}{
		{"one each", map[ether.MAC]string{machine(1): "10.77.0.7", machine(2): "10.77.0.8"}, "", 2},
		{"two share one", map[ether.MAC]string{machine(2): "10.77.0.7", machine(1): "10.77.0.7", machine(3): "10.77.0.8"},
			"10.77.0.7 is reserved for " + machine(1).String() + " and for " + machine(2).String(), 1},
		{"another network", map[ether.MAC]string{machine(1): "10.78.0.7"}, "no address of a machine in 10.77.0.0/16", 0},
		{"the network's own", map[ether.MAC]string{machine(1): "10.77.0.0"}, "no address of a machine", 0},
		{"the broadcast address", map[ether.MAC]string{machine(1): "10.77.255.255"}, "no address of a machine", 0},
		{"IPv6", map[ether.MAC]string{machine(1): "fe80::1"}, "no address of a machine", 0},
		{"the boot host's own", map[ether.MAC]string{machine(1): selfIP}, selfIP + " is reserved for " + machine(1).String() + ", but belongs", 0},
	} {
		table := newTable("10.77.0.0/16", &now, self)
		wanted := make(map[ether.MAC]netip.Addr)
		for m, addr := range tc.reserved {
			wanted[m] = netip.MustParseAddr(addr)
		}
		ignored := table.Reserve(netip.PrefixFrom(self, 16), wanted)
		if (tc.want == "") != (len(ignored) == 0) || len(ignored) > 0 && (len(ignored) > 1 || !strings.Contains(ignored[0].Error(), tc.want)) {
			t.Errorf("%s: ignored %v, want %q", tc.name, ignored, tc.want)
		}
		kept := 0
		for m, addr := range wanted {
			if got := exchange(t, table, m); got == addr {
				kept++
			} else if got == self {
				t.Errorf("%s: the boot host's own address was given away", tc.name)
			}
		}
		if kept != tc.kept {
			t.Errorf("%s: %d reserved are kept, want %d", tc.name, kept, tc.kept)
		}
	}
}
