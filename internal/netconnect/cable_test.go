package netconnect

import (
	"context"
	"net/netip"
	"sync"
	"testing"
	"time"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/ether"
	"viver.lan/internal/journal"
	"viver.lan/internal/netbed/lantest"
)

// connecting connects in the background, by boot0 only.
func connecting(t *testing.T, cfg Config) <-chan bootnet.Network {
	t.Helper()
	cfg.BootIF = ether.MAC{0x52, 0x54, 0, 0, 0, 1}
	connected := make(chan bootnet.Network, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	var wait sync.WaitGroup
	wait.Go(func() {
		defer close(connected)
		n, err := Connect(ctx, cfg)
		if err != nil {
			t.Errorf("Connect = %v", err)
			return
		}
		connected <- n
	})
	t.Cleanup(func() { cancel(); wait.Wait() })
	return connected
}

// askingUnanswered has a machine ask for an address behind a closed switch port.
func askingUnanswered(t *testing.T) (said *journal.Journal, connected <-chan bootnet.Network) {
	t.Helper()
	lantest.SwitchAndServer(t, "")
	lantest.ClosePort(t)
	said, log := lantest.Journal(t)
	return said, connecting(t, Config{Log: log})
}

// A machine asks on while its switch port is closed, and says why it waits.
func TestNetnsSlowSwitchPort(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	said, connected := askingUnanswered(t)
	lantest.Eventually(t, "a notice about the wait", func() bool {
		return said.Says("no answer on boot0 for") && said.Says("spanning tree")
	})
	select {
	case n := <-connected:
		t.Fatalf("the port was closed, and yet: %+v", n)
	default:
	}
	lantest.OpenPort(t)
	if n := <-connected; n.Lease.Server != netip.MustParseAddr("192.168.50.1") {
		t.Errorf("network: %+v", n)
	}
}

// A cable that is pulled while the machine asks, and put back.
func TestNetnsCablePulledWhileAsking(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	said, connected := askingUnanswered(t)
	lantest.Eventually(t, "asking", func() bool { return said.Says("asking for an address") })
	lantest.Run(t, "ip -n lan link set far0 down")
	lantest.Eventually(t, "a notice about the cable", func() bool { return said.Says("cable pulled") && said.Says("boot0") })
	lantest.Run(t, "ip -n lan link set far0 up")
	back := time.Now()
	if n := <-connected; n.Lease.Server != netip.MustParseAddr("192.168.50.1") {
		t.Errorf("network: %+v", n)
	}
	t.Logf("a lease %s after the cable was back", time.Since(back).Round(100*time.Millisecond))
}
