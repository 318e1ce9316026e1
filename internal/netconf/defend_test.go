package netconf

import (
	"context"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestNetnsGuardDefendsItsAddress lets a stranger take a machine's address, whose
// lease has run out and whose server is gone.
func TestNetnsGuardDefendsItsAddress(t *testing.T) {
	if !inNetns(t, "busybox") {
		return
	}
	stop := dnsmasq(t, onFar0, range1)
	n := connected(t)
	stop()
	n.Lease.Obtained -= time.Hour
	address := n.Lease.Address.Addr().String()
	claims := overhear(t, n)
	said, log := newJournal(t)
	guardWith(t, GuardConfig{Network: n, Log: log})
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
	run(t, "ip -n lan addr add "+address+"/32 dev far0")
	began := time.Now()
	eventually(t, "the address is defended", func() bool {
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
	if out := run(t, "ip addr show boot0"); !strings.Contains(out, "inet "+address) {
		t.Errorf("the address is gone:\n%s", out)
	}
}

// TestNetnsTwoWhoAsk has another machine ask for an address while we do. For a
// boot host that is no use of it; who wants it for itself takes another.
func TestNetnsTwoWhoAsk(t *testing.T) {
	if !inNetns(t, "busybox") {
		return
	}
	link := upLink(t, "boot0")
	wanted := netip.MustParseAddr("192.168.50.77")
	asks := exec.Command("ip", strings.Fields("netns exec lan busybox arping -D -b -c 60 -w 60 -I far0 "+wanted.String())...)
	if err := asks.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = asks.Process.Kill(); _ = asks.Wait() })
	q := arpQuestion{link: link, pause: arpProbePause, has: arpPacket.takes}
	eventually(t, "the other's question is heard", func() bool {
		_, heard, err := q.ask(within(t, 10*time.Second), wanted)
		return err == nil && heard
	})
	// It asks once a second, and we listen for longer than that in all.
	for range 4 {
		if by, used, err := InUse(within(t, 10*time.Second), link, wanted); err != nil || used {
			t.Fatalf("in use by %s: %v, %v", by, used, err)
		}
	}
}

// overhear counts the claims of a machine to its address at the far end.
func overhear(t *testing.T, n Network) *atomic.Int32 {
	t.Helper()
	var s *packetSocket
	inLan(t, func() error {
		far, err := net.InterfaceByName("far0")
		if err == nil {
			s, err = openPacketSocket(far.Index, etherTypeARP, arpFrom(n.Lease.Address.Addr()))
		}
		return err
	})
	count := new(atomic.Int32)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.receiveUntil(ctx, time.Time{}, func(frame []byte) bool {
			if p, err := parseARP(frame); err == nil && p == announcementOf(n.Lease.Address.Addr(), n.Link.MAC) {
				count.Add(1)
			}
			return false
		})
	}()
	t.Cleanup(func() { cancel(); <-done; s.close() })
	return count
}
