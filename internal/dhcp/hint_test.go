package dhcp

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/ether"
)

// twins returns two machines whose hashes name the same first address.
func twins(t *testing.T, pool netip.Prefix) (a, b ether.MAC) {
	t.Helper()
	seen := make(map[netip.Addr]ether.MAC)
	for n := range uint32(1 << 16) {
		m := machine(n)
		addr := Candidate(pool, m, 0)
		if other, ok := seen[addr]; ok {
			return other, m
		}
		seen[addr] = m
	}
	t.Fatal("no two machines with one address")
	return a, b
}

// TestHostsAgreeOnTwins switches the machine off that has their address, and
// lets the other one boot at a host that never met either.
func TestHostsAgreeOnTwins(t *testing.T) {
	now := testNow
	one, two := twins(t, pool16)
	before, after := newTable("10.77.0.0/16", &now), newTable("10.77.0.0/16", &now)
	lives := map[ether.MAC]netip.Addr{one: exchange(t, before, one), two: exchange(t, before, two)}
	if lives[one] != Candidate(pool16, one, 0) || lives[two] != Candidate(pool16, two, 1) {
		t.Fatalf("not twins: %v", lives)
	}
	after.AddHints(lives)
	after.AddHints(nil) // they are gone for a while
	now = now.Add(hintTime / 2)
	if got := exchange(t, after, two); got != lives[two] {
		t.Errorf("the second machine had %s, now has %s", lives[two], got)
	}
	if got := exchange(t, after, one); got != lives[one] {
		t.Errorf("the first machine had %s, now has %s", lives[one], got)
	}
}

func TestHints(t *testing.T) {
	one, two := twins(t, pool16)
	first, second := Candidate(pool16, one, 0), Candidate(pool16, two, 1)
	elsewhere := netip.MustParseAddr("10.77.9.9")
	type lives = map[ether.MAC]netip.Addr
	for _, tc := range []struct {
		name  string
		hints []lives
		later time.Duration
		want  netip.Addr // for two
	}{
		{"nothing", nil, 0, first},
		{"its address", []lives{{two: elsewhere}}, 0, elsewhere},
		{"the address of another", []lives{{one: first}}, 0, second},
		{"the first hint of a machine stays", []lives{{two: second}, {two: elsewhere}}, 0, second},
		{"the first hint of an address stays", []lives{{two: first}, {one: first}}, 0, first},
		{"also when it is silent", []lives{{two: second}, {}, {one: second}}, hintTime, second},
		{"not for ever", []lives{{two: second}, {}}, hintTime + time.Second, first},
		{"two at one address", []lives{{two: second, one: second}}, 0, first},
		{"outside of the pool", []lives{{two: netip.MustParseAddr("10.78.0.1")}}, 0, first},
		{"the host's own", []lives{{two: netip.MustParseAddr(selfIP)}}, 0, first},
		{"no address", []lives{{two: netip.Addr{}}}, 0, first},
		{"no address of a machine", []lives{{two: netip.MustParseAddr("10.77.0.255")}}, 0, first},
	} {
		now := testNow
		table := newTable("10.77.0.0/16", &now, netip.MustParseAddr(selfIP))
		for _, l := range tc.hints {
			table.AddHints(l)
		}
		now = now.Add(tc.later)
		table.AddHints(nil)
		if got := exchange(t, table, two); got != tc.want {
			t.Errorf("%s: got %s, want %s", tc.name, got, tc.want)
		}
	}
}

// TestHintsCountLess tells lies about a machine with a reservation and about one with
// a lease.
func TestHintsCountLess(t *testing.T) {
	now := testNow
	table := newTable("10.77.0.0/16", &now)
	reserved, leased, liar := machine(1), machine(2), machine(3)
	addr, reservedAddr := exchange(t, table, leased), netip.MustParseAddr("10.77.0.7")
	reserve(t, table, map[ether.MAC]netip.Addr{reserved: reservedAddr})
	for _, lie := range []map[ether.MAC]netip.Addr{
		{leased: netip.MustParseAddr("10.77.9.9"), reserved: netip.MustParseAddr("10.77.9.8")},
		{liar: addr, machine(4): reservedAddr},
	} {
		table.AddHints(lie)
	}
	for m, want := range map[ether.MAC]netip.Addr{leased: addr, reserved: reservedAddr} {
		if d := requests(t, table, m, want); d.Reply.MessageType() != dhcpv4.MessageTypeAck {
			t.Errorf("%s is refused %s: %s", m, want, d.Reason)
		}
		if got := exchange(t, table, m); got != want {
			t.Errorf("%s got %s, want %s", m, got, want)
		}
	}
	refused(t, table, liar, addr, "another machine")
	refused(t, table, machine(4), reservedAddr, "reserved for another")
}

// TestHearsayAndTheLink lets a machine ask for the address where another one is
// said to live: it gets it if it uses it.
func TestHearsayAndTheLink(t *testing.T) {
	now := testNow
	said, asks, addr := machine(1), machine(2), netip.MustParseAddr("10.77.9.9")
	request := nodeRequest(t, asks, as(dhcpv4.MessageTypeRequest), wants(addr))
	for _, tc := range []struct {
		name string
		user ether.MAC // of the address, on the link
		want dhcpv4.MessageType
	}{
		{"it uses it", asks, dhcpv4.MessageTypeAck},
		{"nobody does", ether.MAC{}, dhcpv4.MessageTypeNak},
		{"the other one does", said, dhcpv4.MessageTypeNak},
	} {
		table := newTable("10.77.0.0/16", &now)
		table.AddHints(map[ether.MAC]netip.Addr{said: addr})
		m, probe, ok := AddressToProbe(request, on67, testConfig(Full), table)
		if !ok || m != asks || probe != addr {
			t.Fatalf("%s: a probe of %s, %v", tc.name, probe, ok)
		}
		table.Probed(asks, addr, tc.user)
		if _, _, again := AddressToProbe(request, on67, testConfig(Full), table); again {
			t.Errorf("%s: another probe", tc.name)
		}
		if d := requests(t, table, asks, addr); d.Reply.MessageType() != tc.want {
			t.Errorf("%s: %s", tc.name, d.Reason)
		}
		if tc.user == (ether.MAC{}) {
			if got := exchange(t, table, said); got != addr {
				t.Errorf("%s: the other machine got %s", tc.name, got)
			}
		}
	}
}

// TestHearsayIsBounded fills the memory with machines that do not exist, and
// then a small pool.
func TestHearsayIsBounded(t *testing.T) {
	now := testNow
	table := newTable("10.0.0.0/8", &now)
	known, addr := machine(1<<24), netip.MustParseAddr("10.200.0.1")
	table.AddHints(map[ether.MAC]netip.Addr{known: addr})
	lies := make(map[ether.MAC]netip.Addr)
	for n := range uint32(2 * maxHints) {
		lies[machine(n)] = netip.AddrFrom4([4]byte{10, 100, byte(n >> 7), byte(n&127) + 1})
	}
	table.AddHints(lies)
	if n, m := len(table.hints.byMAC), len(table.hints.byAddr); n != maxHints || m != n {
		t.Errorf("%d machines at %d addresses are remembered, want %d", n, m, maxHints)
	}
	if got := mustFind(t, table, known); got != addr {
		t.Errorf("got %s, want %s", got, addr)
	}
	now = now.Add(hintTime + time.Second)
	table.AddHints(nil)
	if len(table.hints.byMAC) != 0 || len(table.hints.byAddr) != 0 {
		t.Error("what nobody says any more is remembered")
	}
	small := newTable("10.0.0.0/29", &now)
	for n := range uint32(6) {
		small.AddHints(map[ether.MAC]netip.Addr{machine(n): netip.AddrFrom4([4]byte{10, 0, 0, byte(n) + 1})})
	}
	for n := range uint32(6) { // machines that nobody spoke of
		m := machine(100 + n)
		found, err := small.Find(m)
		if err != nil {
			t.Fatalf("hearsay keeps a machine from booting: %v", err)
		}
		if err := small.Bind(m, found, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := small.Find(machine(200)); !errors.Is(err, ErrFull) {
		t.Errorf("a full pool: %v", err)
	}
}
