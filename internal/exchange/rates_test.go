package exchange

import (
	"maps"
	"net/netip"
	"testing"
	"time"

	"viver.lan/internal/swarm/wire"
)

// Of too many addresses those are forgotten that matter least, the same ones each time.
func TestTooManyAddresses(t *testing.T) {
	host := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}) }
	run := func() (rates Rates, b blame) {
		b = newBlame()
		for n := range 2 * maxHosts {
			// The later it came, the less it used: only the newest are ever forgotten.
			rates.Of(host(n), 0, 1, 4*maxHosts).AllowN(Clock(0), 2*maxHosts+1-n)
			b.distrust(host(n), time.Duration(n%3))
		}
		return rates, b
	}
	rates, b := run()
	again, c := run()
	if len(rates) > maxHosts || len(rates) < maxHosts/2 || rates[host(0)] == nil || rates[host(maxHosts)] != nil {
		t.Errorf("%d addresses with limits, the one that used the most among them: %v", len(rates), rates[host(0)] != nil)
	}
	for h := range rates {
		if again[h] == nil {
			t.Errorf("%v was forgotten the other time", h)
		}
	}
	if len(b.distrusted) > maxHosts || len(b.distrusted) < maxHosts/2 || !maps.Equal(b.distrusted, c.distrusted) {
		t.Errorf("%d addresses are distrusted, and then others", len(b.distrusted))
	}
}

// Strikes are forgotten some time after the ban: also those of names for which their
// address was banned.
func TestStrikesAreForgotten(t *testing.T) {
	x := newExchange(t)
	for n := range 2 * strangerNames {
		x.ban(sender{addr: netip.MustParseAddr("10.0.0.1"), id: wire.PeerID{byte(n)}}, nil)
	}
	x.SetTime(time.Hour)
	x.ban(sender{addr: netip.MustParseAddr("10.0.0.2"), id: wire.PeerID{1}}, nil)
	x.SetTime(2 * time.Hour)
	x.ban(sender{addr: netip.MustParseAddr("10.0.0.3"), id: wire.PeerID{1}}, nil)
	if len(x.blame.strikes) != 2 || len(x.blame.banned) != 1 {
		t.Errorf("%d strikes and %d bans are left", len(x.blame.strikes), len(x.blame.banned))
	}
}
