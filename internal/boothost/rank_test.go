package boothost

import (
	"context"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/contain"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
)

func TestRank(t *testing.T) {
	medium, a, b, c := Member{ether.MAC{5: 9}, true}, Member{ether.MAC{5: 1}, false}, Member{ether.MAC{5: 2}, false}, Member{ether.MAC{5: 3}, false}
	for _, tc := range []struct {
		self   Member
		others []Member
		want   int
	}{
		{medium, nil, 0},
		{medium, []Member{a, b, c}, 0},
		{medium, []Member{{ether.MAC{5: 8}, true}, a}, 1},
		{a, []Member{c, medium, b}, 1},
		{b, []Member{c, medium, a}, 2},
		{c, []Member{a, medium, b}, 3},
		{a, []Member{c, b}, 1}, // the medium is gone, or not heard of yet
		{b, []Member{a, c}, 1},
		{c, []Member{a, b}, 2},
		{c, nil, 1},
	} {
		if got := Rank(tc.self, tc.others); got != tc.want {
			t.Errorf("rank of %v beside %v is %d, want %d", tc.self, tc.others, got, tc.want)
		}
	}
}

// discover asks for an address as a node does.
func discover(t *testing.T) *dhcpv4.DHCPv4 {
	t.Helper()
	hw, err := net.ParseMAC(clientMAC)
	if err != nil {
		t.Fatal(err)
	}
	p, err := dhcpv4.NewDiscovery(hw, dhcpv4.WithOption(dhcpv4.OptClassIdentifier(dhcp.NodeClass+" test")))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestNetnsRank asks a host that is third, then one that is fourth, then one
// that became the first.
func TestNetnsRank(t *testing.T) {
	if !inNetns(t) {
		return
	}
	ranks := make(chan int, 3)
	const fault = -1
	var faults contain.Counter
	b := newBench(t, func(c *Config) {
		c.Log = faults.Watch(c.Log)
		c.Rank = func() int {
			n := <-ranks
			if n == fault {
				panic("a fault of the rank")
			}
			return n
		}
	})
	b.speak(func(ask func(p *dhcpv4.DHCPv4, to string), answer func() *dhcpv4.DHCPv4) {
		ranks <- fault // costs one packet
		ask(discover(t), everyone)
		began := time.Now()
		late, never, now := discover(t), discover(t), discover(t)
		ranks <- 2
		ask(late, everyone)
		ranks <- Hosts
		ask(never, everyone)
		ranks <- 0
		ask(now, everyone)
		if got := answer(); got.TransactionID != now.TransactionID {
			t.Errorf("answered %s first, want %s", got.TransactionID, now.TransactionID)
		}
		if got := answer(); got.TransactionID != late.TransactionID || time.Since(began) < 2*rankDelay {
			t.Errorf("answered %s after %s, want %s after %s", got.TransactionID, time.Since(began), late.TransactionID, 2*rankDelay)
		}
	})
	if n := faults.Total(); n != 1 {
		t.Errorf("%d faults were contained, want 1", n)
	}
	if n := b.requests(dhcp.Node, "OFFER"); n != 2 {
		t.Errorf("%v offers, want 2", n)
	}
}

// TestNetnsAddressInUse offers a machine the first of its addresses that
// nobody else has; its own use of one is no obstacle.
func TestNetnsAddressInUse(t *testing.T) {
	if !inNetns(t) {
		return
	}
	pool := netip.MustParsePrefix("10.77.0.0/16")
	client, err := ether.ParseMAC(clientMAC)
	if err != nil {
		t.Fatal(err)
	}
	users := map[netip.Addr]ether.MAC{
		dhcp.Candidate(pool, client, 0): {2, 0, 0, 0, 0, 9},
		dhcp.Candidate(pool, client, 1): client,
	}
	probed := make(chan netip.Addr, 16)
	b := newBench(t, func(c *Config) {
		c.ProbeAddress = func(_ context.Context, addr netip.Addr) (ether.MAC, bool, error) {
			probed <- addr
			by, used := users[addr]
			return by, used, nil
		}
	})
	b.speak(func(ask func(p *dhcpv4.DHCPv4, to string), answer func() *dhcpv4.DHCPv4) {
		for range 2 {
			ask(discover(t), everyone)
			if got, want := answer().YourIPAddr.String(), dhcp.Candidate(pool, client, 1).String(); got != want {
				t.Errorf("offered %s, want %s", got, want)
			}
		}
	})
	if n := len(probed); n != 2 {
		t.Errorf("%d probes, want one for each address", n)
	}
}

// TestNetnsFloodOfNewMachines sends 10,000 requests of machines that never were: a
// machine that has an address still gets it.
func TestNetnsFloodOfNewMachines(t *testing.T) {
	if !inNetns(t) {
		return
	}
	release := make(chan struct{})
	var flooding atomic.Bool
	b := newBench(t, func(c *Config) {
		c.ProbeAddress = func(ctx context.Context, _ netip.Addr) (ether.MAC, bool, error) {
			if flooding.Load() {
				select {
				case <-release:
				case <-ctx.Done():
				}
			}
			return ether.MAC{}, false, ctx.Err()
		}
	})
	class := dhcpv4.WithOption(dhcpv4.OptClassIdentifier(dhcp.NodeClass + " test"))
	b.speak(func(ask func(p *dhcpv4.DHCPv4, to string), answer func() *dhcpv4.DHCPv4) {
		ask(discover(t), everyone)
		request, err := dhcpv4.NewRequestFromOffer(answer(), class)
		if err != nil {
			t.Fatal(err)
		}
		ask(request, everyone)
		mine := answer()
		flooding.Store(true)
		data, err := os.ReadFile("../dhcp/testdata/ovmf-pxe-discover.bin")
		if err != nil {
			t.Fatal(err)
		}
		for n := range 10000 {
			p, err := dhcpv4.FromBytes(data)
			if err != nil {
				t.Fatal(err)
			}
			p.ClientHWAddr = net.HardwareAddr{2, 1, 0, 0, byte(n >> 8), byte(n)}
			ask(p, everyone)
		}
		for range 10 { // the flood may have filled the socket's queue
			ask(discover(t), everyone)
			time.Sleep(100 * time.Millisecond)
		}
		if got := answer(); !got.YourIPAddr.Equal(mine.YourIPAddr) {
			t.Errorf("offered %s during the flood, before it %s", got.YourIPAddr, mine.YourIPAddr)
		}
	})
	close(release)
}
