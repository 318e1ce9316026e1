package netguard

import (
	"context"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/ether"
	"viver.lan/internal/netbed/lantest"
	"viver.lan/internal/netconnect"
	"viver.lan/internal/sleep"
)

type change struct{ old, new bootnet.Lease }

func connected(t *testing.T) bootnet.Network {
	t.Helper()
	n, err := netconnect.Connect(lantest.Within(t, 60*time.Second), netconnect.Config{BootIF: ether.MAC{0x52, 0x54, 0, 0, 0, 1}, Log: lantest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// runGuard guards until the test ends.
func runGuard(t *testing.T, n bootnet.Network) (*Guard, chan change) {
	t.Helper()
	changes := make(chan change, 16)
	return guardWith(t, Config{Network: n, Changed: func(old, new bootnet.Lease) { changes <- change{old, new} }}), changes
}

func guardWith(t *testing.T, cfg Config) *Guard {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = lantest.Log(t)
	}
	g := New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- g.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return g
}

func TestNetnsGuardPutsBack(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	lantest.DNSMasq(t, lantest.OnFar0, lantest.Range)
	g, _ := runGuard(t, connected(t))
	address := g.leaseNow().Address
	whole := func() bool {
		route := lantest.Run(t, "ip route")
		return strings.Contains(lantest.Run(t, "ip -br addr show boot0"), "UP") &&
			strings.Contains(lantest.Run(t, "ip addr show boot0"), "inet "+address.String()) &&
			strings.Contains(route, "192.168.50.0/24 dev boot0") && strings.Contains(route, "default via 192.168.50.1")
	}
	lantest.Eventually(t, "whole at first", whole)
	for _, blow := range []string{
		"ip addr del " + address.String() + " dev boot0",
		"ip link set boot0 down",
		"ip addr flush dev boot0",
		"ip route del 192.168.50.0/24 dev boot0",
	} {
		lantest.Run(t, blow)
		lantest.Eventually(t, "whole after "+blow, whole)
	}
	// The default route alone is the distribution's business.
	lantest.Run(t, "ip route del default")
	lantest.Run(t, "ip addr add 1.2.3.4/32 dev boot0") // something for the guard to look at
	if err := sleep.For(t.Context(), 300*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if out := lantest.Run(t, "ip route"); strings.Contains(out, "default") {
		t.Errorf("the guard took the default route away from the distribution:\n%s", out)
	}
	// udev renames, and the index stays.
	lantest.Run(t, "ip link set boot0 down")
	lantest.Run(t, "ip link set boot0 name enp0s3")
	lantest.Eventually(t, "put back on the renamed link", func() bool {
		return strings.Contains(lantest.Run(t, "ip -br addr show enp0s3"), "UP") && strings.Contains(lantest.Run(t, "ip addr show enp0s3"), address.String())
	})
}

func TestNetnsGuardFightsSlowly(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	lantest.DNSMasq(t, lantest.OnFar0, lantest.Range)
	g, _ := runGuard(t, connected(t))
	address := g.leaseNow().Address.String()
	// A tool that removes the address whenever it sees it, as fast as it can.
	taken, began := 0, time.Now()
	for time.Since(began) < 3*time.Second {
		if out := lantest.Run(t, "ip addr show boot0"); strings.Contains(out, "inet "+address) {
			lantest.Run(t, "ip addr del "+address+" dev boot0")
			taken++
		}
	}
	// Ten at once, then one per second.
	if most := 12 + int(time.Since(began)/time.Second); taken < 2 || taken > most {
		t.Errorf("the address was put back %d times, want about %d", taken, most)
	}
	lantest.Eventually(t, "the guard wins in the end", func() bool {
		return strings.Contains(lantest.Run(t, "ip addr show boot0"), "inet "+address)
	})
}

func TestNetnsGuardRenews(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	stop := lantest.DNSMasq(t, lantest.OnFar0, lantest.Range)
	// T1 has come already, so the guard renews at once, at its own server.
	n := connected(t)
	n.Lease.Renew = time.Millisecond
	g, changes := runGuard(t, n)
	c := <-changes
	if c.new.Address != c.old.Address || c.new.Obtained <= c.old.Obtained || c.new.Renew < time.Second {
		t.Fatalf("renewed %+v as %+v", c.old, c.new)
	}
	// By hand, as often as one likes.
	if err := g.renewBy(lantest.Within(t, 30*time.Second), unicast); err != nil {
		t.Fatal(err)
	}
	if again := <-changes; again.new.Obtained <= c.new.Obtained {
		t.Errorf("renewed %+v as %+v", c.new, again.new)
	}
	// A server that does not know us any more and has another range: the new
	// address is there while we are told, and the old one goes after that.
	stop()
	both := make(chan string, 1)
	old := g.leaseNow().Address
	g.changed = func(_, _ bootnet.Lease) { both <- lantest.Run(t, "ip addr show boot0") }
	lantest.DNSMasq(t, lantest.OnFar0, "--dhcp-range=192.168.50.200,192.168.50.210,255.255.255.0,120", "--dhcp-authoritative")
	lantest.Eventually(t, "a new lease", func() bool { return g.renewBy(lantest.Within(t, 30*time.Second), unicast) == nil })
	renewed := g.leaseNow().Address
	if renewed == old || !netip.MustParsePrefix("192.168.50.192/27").Contains(renewed.Addr()) {
		t.Fatalf("address %s became %s", old, renewed)
	}
	if out := <-both; !strings.Contains(out, old.String()) || !strings.Contains(out, renewed.String()) {
		t.Errorf("while the change was told, not both %s and %s were there:\n%s", old, renewed, out)
	}
	lantest.Eventually(t, "only the new address", func() bool {
		out := lantest.Run(t, "ip addr show boot0")
		return !strings.Contains(out, old.String()) && strings.Contains(out, renewed.String()) &&
			strings.Contains(lantest.Run(t, "ip route"), "default via 192.168.50.1")
	})
}

func TestNetnsGuardKeepsExpiredLease(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	stop := lantest.DNSMasq(t, lantest.OnFar0, lantest.Range)
	n := connected(t)
	stop()
	n.Lease.Obtained -= time.Hour
	g, changes := runGuard(t, n)
	address := g.leaseNow().Address.String()
	if err := sleep.For(t.Context(), time.Second); err != nil {
		t.Fatal(err)
	}
	lantest.Run(t, "ip addr del "+address+" dev boot0")
	lantest.Eventually(t, "the expired address is put back", func() bool {
		return strings.Contains(lantest.Run(t, "ip addr show boot0"), "inet "+address)
	})
	select {
	case c := <-changes:
		t.Fatalf("a lease from nobody: %+v", c)
	default:
	}
	// The server comes back and the next DISCOVER finds it.
	lantest.DNSMasq(t, lantest.OnFar0, lantest.Range)
	c := <-changes
	if c.new.Expires == 0 || c.new.Obtained <= c.old.Obtained {
		t.Errorf("got %+v", c.new)
	}
	lantest.Eventually(t, "an address", func() bool {
		return strings.Contains(lantest.Run(t, "ip addr show boot0"), "inet "+c.new.Address.String())
	})
}

// A lease of seconds is kept.
func TestNetnsLeaseOfSeconds(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	o := lantest.Serve(t, "far0", &lantest.Server{Address: netip.MustParseAddr("192.168.50.1"), Next: 100, Answer: func(_ *lantest.Server, asked, m *dhcpv4.DHCPv4) bool {
		m.UpdateOption(dhcpv4.OptIPAddressLeaseTime(5 * time.Second))
		return true
	}})
	n, err := netconnect.Connect(lantest.Within(t, 60*time.Second), netconnect.Config{Log: lantest.Log(t)})
	if err != nil || n.Lease.Expires != 5*time.Second {
		t.Fatalf("Connect = %+v, %v", n, err)
	}
	guardWith(t, Config{Network: n, Log: lantest.Log(t)})
	lantest.Eventually(t, "renewed three times", func() bool { return o.Heard[dhcpv4.MessageTypeRequest].Load() >= 4 })
}
