package netguard

import (
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/netbed/lantest"
	"viver.lan/internal/packet"
)

// TestNetnsGuardDefendsItsAddress lets a stranger take a machine's address, whose
// lease has run out and whose server is gone.
func TestNetnsGuardDefendsItsAddress(t *testing.T) {
	if !lantest.Enter(t, "busybox") {
		return
	}
	stop := lantest.DNSMasq(t, lantest.OnFar0, lantest.Range)
	n := connected(t)
	stop()
	n.Lease.Obtained -= time.Hour
	address := n.Lease.Address.Addr().String()
	claims := overhear(t, n)
	said, log := lantest.Journal(t)
	guardWith(t, Config{Network: n, Log: log})
	arping := func(args string) error {
		out, err := exec.Command("ip", strings.Fields("netns exec lan busybox arping -I far0 "+args+" "+address)...).CombinedOutput()
		t.Logf("arping %s: %v\n%s", args, err, out)
		return err
	}
	// One who asks first hears from the kernel, and leaves it be.
	if arping("-D -c 2 -w 10") == nil {
		t.Error("the address is said to be free")
	}
	if claims.Load() != 0 || said.Says("another machine") {
		t.Error("a question is taken for a claim")
	}
	lantest.Run(t, "ip -n lan addr add "+address+"/32 dev far0")
	began := time.Now()
	lantest.Eventually(t, "the address is defended", func() bool {
		return arping("-U -c 1 -w 1") == nil && claims.Load() > 0
	})
	if err := arping("-U -c 3 -w 3"); err != nil {
		t.Fatal(err)
	}
	if n, most := claims.Load(), int32(1+time.Since(began)/defendEvery); n > most {
		t.Errorf("%d announcements in %s, want %d at most", n, time.Since(began), most)
	}
	if strings.Count(said.String(), "another machine") != 1 || strings.Count(said.String(), "by=02:00:00:00:00:01") != 1 {
		t.Errorf("want one line that names the stranger, in:\n%s", said)
	}
	if out := lantest.Run(t, "ip addr show boot0"); !strings.Contains(out, "inet "+address) {
		t.Errorf("the address is gone:\n%s", out)
	}
}

// overhear counts the claims of a machine to its address at the far end.
func overhear(t *testing.T, n bootnet.Network) *atomic.Int32 {
	t.Helper()
	s, _ := lantest.FarSocket(t, "far0", packet.EtherTypeARP, packet.ARPFrom(n.Lease.Address.Addr()))
	count := new(atomic.Int32)
	lantest.Receive(t, s, func(frame []byte) {
		if p, err := packet.ParseARP(frame); err == nil && p == packet.ARPAnnouncement(n.Lease.Address.Addr(), n.Card.MAC) {
			count.Add(1)
		}
	})
	return count
}
