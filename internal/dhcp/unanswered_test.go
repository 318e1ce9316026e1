package dhcp

import (
	"net"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

func TestUnanswered(t *testing.T) {
	const firmware, node, other = "PXEClient:Arch:00007:UNDI:003000", NodeClass + " test", "udhcp 1.37"
	const discover, request = dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest
	type said struct {
		after time.Duration // since the one before
		class string
		kind  dhcpv4.MessageType
		want  time.Duration
	}
	for name, messages := range map[string][]said{
		"firmware": {{0, firmware, discover, 0}, {4 * time.Second, firmware, discover, 4 * time.Second}, {8 * time.Second, firmware, discover, 12 * time.Second}},
		"firmware that gets an address only": {{0, firmware, discover, 0}, {time.Second, firmware, request, 0},
			{time.Minute, firmware, discover, 61 * time.Second}},
		"a boot": {{0, firmware, discover, 0}, {time.Second, firmware, request, 0}, {30 * time.Second, node, discover, 0},
			{time.Second, node, request, 0}, {time.Minute, firmware, discover, 0}},
		"a boot host that looks for servers": {{0, node, discover, 0}, {time.Minute, node, discover, 0}},
		"switched on again":                  {{0, firmware, discover, 0}, {askingPause + time.Second, firmware, discover, 0}},
		"another client":                     {{0, other, discover, 0}, {time.Minute, other, discover, 0}},
	} {
		now := time.Unix(1e9, 0)
		u := NewUnanswered(func() time.Time { return now })
		for n, m := range messages {
			now = now.Add(m.after)
			p, err := dhcpv4.New(dhcpv4.WithHwAddr(testMAC[:]), dhcpv4.WithMessageType(m.kind), dhcpv4.WithOption(dhcpv4.OptClassIdentifier(m.class)))
			if err != nil {
				t.Fatal(err)
			}
			marked, relayed := Enquiry(p, p.TransactionID), *p
			relayed.GatewayIPAddr = net.IPv4(10, 0, 0, 1)
			if u.Observe(marked) != 0 || u.Observe(&relayed) != 0 {
				t.Errorf("%s: an enquiry or a relay counts", name)
			}
			if got := u.Observe(p); got != m.want {
				t.Errorf("%s: after message %d it has asked for %s, want %s", name, n, got, m.want)
			}
		}
	}
}

// A flood of made-up machines takes no more memory than so much.
func TestUnansweredIsBounded(t *testing.T) {
	now := time.Unix(1e9, 0)
	u := NewUnanswered(func() time.Time { return now })
	for n := range 2 * maxAsking {
		p, err := dhcpv4.NewDiscovery(net.HardwareAddr{2, 0, 0, 0, byte(n >> 8), byte(n)}, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient")))
		if err != nil {
			t.Fatal(err)
		}
		if u.Observe(p); len(u.asking) > maxAsking {
			t.Fatalf("%d machines are remembered", len(u.asking))
		}
	}
}
