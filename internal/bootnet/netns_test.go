package bootnet

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/netbed/lantest"
)

func TestNetnsLinks(t *testing.T) {
	if !lantest.Enter(t) {
		return
	}
	lantest.Run(t, "ip link add br0 type bridge")
	links, err := Cards()
	if err != nil || len(links) != 2 || links[0].Name == links[1].Name {
		t.Fatalf("Cards = %v, %v; want boot0 and boot1", links, err)
	}
	if err := WaitCarrier(lantest.Within(t, 200*time.Millisecond), links[0].Index); err == nil {
		t.Error("a link that is off has a carrier")
	}
	boot1 := lantest.Card(t, "boot1").Attrs().Index
	if err := WaitCarrier(lantest.Within(t, 10*time.Second), boot1); err != nil {
		t.Error(err)
	}
	lantest.Run(t, "ip -n lan link set far1 down")
	lantest.Eventually(t, "carrier lost", func() bool { return WaitCarrier(lantest.Within(t, time.Millisecond), boot1) != nil })
	err = WaitCarrier(lantest.Within(t, 200*time.Millisecond), boot1)
	if err == nil || !strings.Contains(err.Error(), "boot1") || !strings.Contains(err.Error(), "cable") {
		t.Errorf("WaitCarrier = %v, want a sentence about the cable of boot1", err)
	}
}

// Another machine probes for an address while we do. For a boot host that is no use of
// it; who wants it for itself takes another.
func TestNetnsSimultaneousProbes(t *testing.T) {
	if !lantest.Enter(t, "busybox") {
		return
	}
	card := CardFrom(lantest.Card(t, "boot0"))
	wanted := netip.MustParseAddr("192.168.50.77")
	asks := exec.Command("ip", strings.Fields("netns exec lan busybox arping -D -b -c 60 -w 60 -I far0 "+wanted.String())...)
	if err := asks.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = asks.Process.Kill(); _ = asks.Wait() })
	p := NewProber(card, lantest.Log(t))
	lantest.Eventually(t, "the other's probe is heard", func() bool {
		_, heard, err := p.probe(lantest.Within(t, 10*time.Second), wanted)
		return err == nil && heard
	})
	// It asks once a second, and we listen for longer than that in all.
	for range 4 {
		if by, used, err := InUse(lantest.Within(t, 10*time.Second), card, wanted); err != nil || used {
			t.Fatalf("in use by %s: %v, %v", by, used, err)
		}
	}
}
