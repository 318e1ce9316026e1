package dhcp

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/ether"
)

var pool16 = netip.MustParsePrefix("10.77.0.0/16")

func machine(n uint32) ether.MAC {
	m := ether.MAC{0x02, 0}
	binary.BigEndian.PutUint32(m[2:], n)
	return m
}

// TestCandidateIsForever checks the address of a few machines: a new version of
// the program on another host must find the same ones.
func TestCandidateIsForever(t *testing.T) {
	for _, tc := range []struct {
		pool string
		n    int
		want string
	}{
		{"10.77.0.0/16", 0, "10.77.230.50"},
		{"10.77.0.0/16", 1, "10.77.191.59"},
		{"192.168.5.0/24", 0, "192.168.5.50"},
		{"192.168.5.4/30", 0, "192.168.5.6"},
	} {
		if got := Candidate(netip.MustParsePrefix(tc.pool), testMAC, tc.n); got.String() != tc.want {
			t.Errorf("candidate %d in %s is %s, it used to be %s", tc.n, tc.pool, got, tc.want)
		}
	}
}

func TestCandidateSpread(t *testing.T) {
	seen := make(map[netip.Addr]int)
	for n := range uint32(40000) {
		a := Candidate(pool16, machine(n), 0)
		if !assignable(pool16, a) {
			t.Fatalf("candidate %s", a)
		}
		seen[a]++
	}
	if len(seen) < 29000 { // 40,000 balls into 65,000 bins hit about 29,900
		t.Errorf("40000 machines share %d addresses", len(seen))
	}
	small := netip.MustParsePrefix("10.0.0.0/30")
	for n := range uint32(100) {
		if a := Candidate(small, machine(n), 0); a.String() != "10.0.0.1" && a.String() != "10.0.0.2" {
			t.Fatalf("candidate %s in %s", a, small)
		}
	}
}

func newTable(pool string, now *time.Time, reserved ...netip.Addr) *Leases {
	return NewLeases(netip.MustParsePrefix(pool), func() time.Time { return *now }, reserved...)
}

func TestAddressIsStable(t *testing.T) {
	now := testNow
	a, b := newTable("10.77.0.0/16", &now), newTable("10.77.0.0/16", &now)
	first, err := a.Find(testMAC)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Bind(testMAC, first, time.Hour); err != nil {
		t.Fatal(err)
	}
	now = now.Add(100 * time.Hour) // long after the lease
	if again, _ := a.Find(testMAC); again != first {
		t.Errorf("%s became %s", first, again)
	}
	if other, _ := b.Find(testMAC); other != first {
		t.Errorf("another host gives %s, not %s", other, first)
	}
}

func TestCollision(t *testing.T) {
	now := testNow
	table := newTable("10.0.0.0/29", &now, netip.MustParseAddr("10.0.0.1")) // leaves .2 to .6
	given := make(map[netip.Addr]bool)
	for n := range uint32(5) {
		addr, err := table.Find(machine(n))
		if err != nil {
			t.Fatal(err)
		}
		if given[addr] {
			t.Fatalf("%s given twice", addr)
		}
		given[addr] = true
		if n%2 == 0 { // the others are only offered yet
			if err := table.Bind(machine(n), addr, time.Hour); err != nil {
				t.Fatal(err)
			}
		}
	}
	if addr, err := table.Find(machine(99)); !errors.Is(err, ErrFull) {
		t.Errorf("a sixth machine got %s, %v", addr, err)
	}
	now = now.Add(2 * offerTime) // the two offers were never taken up
	if _, err := table.Find(machine(99)); err != nil {
		t.Error(err)
	}
}

func TestBindRefuses(t *testing.T) {
	now := testNow
	table := newTable("10.77.0.0/16", &now)
	mine, _ := table.Find(machine(1))
	if err := table.Bind(machine(2), mine, time.Hour); err == nil || !strings.Contains(err.Error(), "being given") {
		t.Errorf("an offered address went to another: %v", err)
	}
	if err := table.Bind(machine(1), mine, time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := table.Bind(machine(2), mine, time.Hour); err == nil || !strings.Contains(err.Error(), "another machine") {
		t.Errorf("a held address went to another: %v", err)
	}
	if err := table.Bind(machine(1), mine.Next(), time.Hour); err == nil || !strings.Contains(err.Error(), "not yours") {
		t.Errorf("a machine took a second address: %v", err)
	}
	if got := table.List(); len(got) != 1 || got[0].Address != mine {
		t.Errorf("leases: %v", got)
	}
}

func TestDecline(t *testing.T) {
	table := testTable()
	cfg := testConfig(Full)
	ask := func(p *dhcpv4.DHCPv4) netip.Addr {
		d := Decide(p, on67, cfg, table)
		if d.Reply == nil {
			t.Fatal(d.Reason)
		}
		addr, _ := netip.AddrFromSlice(d.Reply.YourIPAddr.To4())
		return addr
	}
	first := ask(nodeRequest(t, testMAC))
	ask(nodeRequest(t, testMAC, as(dhcpv4.MessageTypeRequest), wants(first), server(selfIP)))
	d := Decide(nodeRequest(t, testMAC, as(dhcpv4.MessageTypeDecline), wants(first), server(selfIP)), on67, cfg, table)
	if d.Reply != nil || !strings.Contains(d.Reason, "declined") {
		t.Fatalf("%v %s", d.Reply, d.Reason)
	}
	second := ask(nodeRequest(t, testMAC))
	if second == first {
		t.Errorf("%s was given again", first)
	}
	if second != Candidate(pool16, testMAC, 1) {
		t.Errorf("second address %s is not the second candidate", second)
	}
	nak := Decide(nodeRequest(t, machine(7), as(dhcpv4.MessageTypeRequest), wants(first)), on67, cfg, table)
	if nak.Reply == nil || nak.Reply.MessageType() != dhcpv4.MessageTypeNak {
		t.Errorf("the declined address was given to another: %s", nak.Reason)
	}
	// Declining what one was never given must not empty the pool.
	d = Decide(nodeRequest(t, machine(8), as(dhcpv4.MessageTypeDecline), wants(second)), on67, cfg, table)
	if addr := ask(nodeRequest(t, testMAC)); addr != second {
		t.Errorf("another client's decline (%s) moved the machine to %s", d.Reason, addr)
	}
}

// TestFlood sends 10,000 machines that do not exist, as DISCOVERs and as full
// exchanges, and finds the known machine where it was.
func TestFlood(t *testing.T) {
	now := testNow
	table := NewLeases(pool16, func() time.Time { return now }, netip.MustParseAddr(selfIP))
	cfg := testConfig(Full)
	known := make(map[ether.MAC]netip.Addr)
	for n := range uint32(40) {
		m := machine(1<<24 + n)
		addr, err := table.Find(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := table.Bind(m, addr, time.Hour); err != nil {
			t.Fatal(err)
		}
		known[m] = addr
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 10000 {
		m := machine(rng.Uint32N(1 << 24))
		d := Decide(nodeRequest(t, m), on67, cfg, table)
		if d.Reply == nil {
			continue
		}
		if n%2 == 0 {
			addr, _ := netip.AddrFromSlice(d.Reply.YourIPAddr.To4())
			Decide(nodeRequest(t, m, as(dhcpv4.MessageTypeRequest), wants(addr), server(selfIP)), on67, cfg, table)
		}
		if n%1000 == 0 {
			now = now.Add(10 * time.Minute) // leases run out on the way
		}
	}
	// The attacker also asks for the known addresses by name.
	for _, addr := range known {
		d := Decide(nodeRequest(t, machine(rng.Uint32N(1<<24)), as(dhcpv4.MessageTypeRequest), wants(addr)), on67, cfg, table)
		if d.Reply != nil && d.Reply.MessageType() == dhcpv4.MessageTypeAck {
			t.Errorf("%s was taken", addr)
		}
	}
	for m, addr := range known {
		if got, err := table.Find(m); err != nil || got != addr {
			t.Errorf("%s had %s, now %s (%v)", m, addr, got, err)
		}
	}
	if n := len(table.offers.index); n > maxOffered {
		t.Errorf("%d offers kept", n)
	}
}

func TestTableIsBounded(t *testing.T) {
	now := testNow
	table := newTable("10.0.0.0/8", &now)
	for n := range uint32(maxBound) {
		if err := table.Bind(machine(n), mustFind(t, table, machine(n)), time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	late := machine(1 << 30)
	addr := mustFind(t, table, late)
	if err := table.Bind(late, addr, time.Hour); !errors.Is(err, ErrFull) {
		t.Fatalf("bound one too many: %v", err)
	}
	renewed := machine(5)
	now = now.Add(2 * time.Hour)
	if err := table.Bind(renewed, mustFind(t, table, renewed), time.Hour); err != nil {
		t.Fatal(err) // renewed, so it must not be the one that goes
	}
	if err := table.Bind(late, mustFind(t, table, late), time.Hour); err != nil {
		t.Fatalf("an expired lease did not make room: %v", err)
	}
	if len(table.byMAC) != maxBound || len(table.byAddr) != maxBound || table.byMAC[renewed] == nil {
		t.Errorf("%d machines, %d addresses", len(table.byMAC), len(table.byAddr))
	}
}

func mustFind(t *testing.T, table *Leases, m ether.MAC) netip.Addr {
	t.Helper()
	addr, err := table.Find(m)
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// TestAddressToProbe gives an address only after one probe of it.
func TestAddressToProbe(t *testing.T) {
	now := testNow
	table := newTable("10.77.0.0/16", &now)
	first, second := Candidate(pool16, testMAC, 0), Candidate(pool16, testMAC, 1)
	toProbe := func(p *dhcpv4.DHCPv4, mode Mode) (netip.Addr, bool) {
		t.Helper()
		_, addr, ok := AddressToProbe(p, on67, testConfig(mode), table)
		return addr, ok
	}
	discover := nodeRequest(t, testMAC)
	if addr, ok := toProbe(discover, Full); !ok || addr != first {
		t.Errorf("a new machine: %s, %v; want a probe of %s", addr, ok, first)
	}
	for _, mode := range []Mode{Proxy, External} {
		if _, ok := toProbe(discover, mode); ok {
			t.Errorf("%s mode gives no address and probes one", mode)
		}
	}
	if _, ok := toProbe(fixture(t, "udhcpc-discover"), Full); ok {
		t.Error("another client causes a probe")
	}
	table.Probed(testMAC, first, machine(9))
	if addr, ok := toProbe(discover, Full); !ok || addr != second {
		t.Errorf("after %s was found in use: %s, %v; want %s", first, addr, ok, second)
	}
	if d := Decide(nodeRequest(t, testMAC, as(dhcpv4.MessageTypeRequest), wants(first)), on67, testConfig(Full), table); d.Reply.MessageType() != dhcpv4.MessageTypeNak {
		t.Errorf("an address in use was given: %s", d.Reason)
	}
	table.Probed(testMAC, second, ether.MAC{})
	table.Probed(machine(7), second, machine(9)) // somebody else's probe does not count
	for range 2 {
		if addr, ok := toProbe(discover, Full); ok || addr != second {
			t.Errorf("after a probe: %s, %v", addr, ok)
		}
	}
	request := nodeRequest(t, testMAC, as(dhcpv4.MessageTypeRequest), wants(second))
	if _, ok := toProbe(request, Full); ok {
		t.Error("another probe of what was just offered")
	}
	if d := Decide(request, on67, testConfig(Full), table); d.Reply.MessageType() != dhcpv4.MessageTypeAck {
		t.Error(d.Reason)
	}
	now = now.Add(100 * time.Hour)
	if _, ok := toProbe(discover, Full); ok {
		t.Error("another probe of the machine's own address")
	}
	// A machine that remembers an address from a host that is gone.
	third := Candidate(pool16, machine(3), 5)
	if addr, ok := toProbe(nodeRequest(t, machine(3), as(dhcpv4.MessageTypeRequest), wants(third)), Full); !ok || addr != third {
		t.Errorf("a remembered address: %s, %v", addr, ok)
	}
	// What would be refused anyway is not worth a probe.
	for _, wanted := range []netip.Addr{second, netip.MustParseAddr("10.78.0.1"), {}} {
		if addr, ok := toProbe(nodeRequest(t, machine(3), as(dhcpv4.MessageTypeRequest), wants(wanted)), Full); ok {
			t.Errorf("a probe of %s", addr)
		}
	}
}

// TestWhoeverUsesAnAddressKeepsIt has a machine ask by name for the address of
// one that the host has never met, which then renews its lease.
func TestWhoeverUsesAnAddressKeepsIt(t *testing.T) {
	now := testNow
	table := newTable("10.77.0.0/16", &now)
	user, other := machine(1), machine(2)
	addr := Candidate(pool16, user, 0)
	for _, m := range []ether.MAC{other, user} {
		request := nodeRequest(t, m, as(dhcpv4.MessageTypeRequest), wants(addr))
		if _, probe, ok := AddressToProbe(request, on67, testConfig(Full), table); !ok || probe != addr {
			t.Errorf("%s: a probe of %s, %v; want one of %s", m, probe, ok, addr)
		}
		table.Probed(m, addr, user)
	}
	refused(t, table, other, addr, "another machine")
	if d := requests(t, table, user, addr); d.Reply.MessageType() != dhcpv4.MessageTypeAck {
		t.Errorf("who uses the address is refused it: %s", d.Reason)
	}
	refused(t, table, other, addr, "another machine")
}
