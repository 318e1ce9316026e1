package netguard

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/ether"
	"viver.lan/internal/netbed/lantest"
	"viver.lan/internal/netconnect"
)

// A cable that is pulled from a machine with a lease, and put back: the address
// stays, what was under way goes on.
func TestNetnsCablePulledAfterTheLease(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	lantest.SwitchAndServer(t, "")
	n := connected(t)
	said, log := lantest.Journal(t)
	g := guardWith(t, Config{Network: n, Log: log})
	address := g.leaseNow().Address.String()
	held := func() bool { return strings.Contains(lantest.Run(t, "ip addr show boot0"), "inet "+address) }
	reached := func() bool {
		// Nobody listens on the far end's discard port, and it says so to us.
		_, err := (&net.Dialer{Timeout: time.Second}).DialContext(t.Context(), "tcp4", "192.168.50.1:9")
		return errors.Is(err, syscall.ECONNREFUSED)
	}
	lantest.Eventually(t, "the far end", reached)
	lantest.Run(t, "ip -n lan link set far0 down")
	lantest.Eventually(t, "a notice about the cable", func() bool { return said.Says("cable pulled") && said.Says("boot0") })
	if !held() {
		t.Errorf("without a cable the address %s is gone", address)
	}
	lantest.Run(t, "ip -n lan link set far0 up")
	lantest.Eventually(t, "a notice that it is back", func() bool { return said.Says("the carrier is back after") })
	lantest.Eventually(t, "the far end again", reached)
	if !held() || g.leaseNow().Address.String() != address {
		t.Errorf("with the cable back the address %s is another, or gone", address)
	}
}

// The first node's switch port opens after its search for DHCP servers: it serves
// addresses then, and has to notice soon that it must not.
func TestNetnsPortOpensAfterTheProbe(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	lantest.SwitchAndServer(t, "stp_state 1 forward_delay 500") // spanning tree, 2 x 5 s
	n, err := netconnect.Connect(lantest.Within(t, 60*time.Second), netconnect.Config{First: true, BootIF: ether.MAC{0x52, 0x54, 0, 0, 0, 1}, Log: lantest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	if n.Lease.Source != bootnet.SourceSelf || len(n.Offers) != 0 {
		t.Fatalf("behind a closed port: %+v", n)
	}
	said, log := lantest.Journal(t)
	changes := make(chan change, 16)
	g := guardWith(t, Config{Network: n, Log: log, Changed: func(old, new bootnet.Lease) { changes <- change{old, new} }})
	lantest.AwaitForwarding(t)
	opened := time.Now()
	moved(t, g, n.Lease.Address)
	took := time.Since(opened)
	t.Logf("the server's address %s after the port opened", took.Round(100*time.Millisecond))
	// Pause, listening time and the server's own take 7 s; it was 34 s once.
	if took > 20*time.Second {
		t.Errorf("noticed after %s, want a few seconds", took)
	}
	if c := <-changes; c.new.Source != bootnet.SourceDHCP || c.new.Viver || !said.Says("another DHCP server is on the link") {
		t.Errorf("told of %+v", c)
	}
}
