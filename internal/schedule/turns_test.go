package schedule

import (
	"net/netip"
	"testing"
	"time"
)

func laneOf(host byte) Lane { return Lane{Host: netip.AddrFrom4([4]byte{10, 0, 0, host})} }

func TestMayTake(t *testing.T) {
	host, other := laneOf(1), laneOf(2)
	me := Taking{Lane: host, Turn: 10 * ms}
	waits := Taking{Lane: other, Waiting: true}
	for name, c := range map[string]struct {
		others []Taking
		now    time.Duration
		want   bool
	}{
		"alone":                              {nil, 20 * ms, true},
		"others wait":                        {[]Taking{waits, waits}, 20 * ms, true},
		"its host is served, nobody else is": {[]Taking{{Lane: host, Sending: true, Turn: 15 * ms}}, 20 * ms, true},
		"its host is served, others wait":    {[]Taking{{Lane: host, Sending: true, Turn: 15 * ms}, waits}, 20 * ms, false},
		"its host is served, others too":     {[]Taking{{Lane: host, Sending: true, Turn: 15 * ms}, {Lane: other, Sending: true}}, 20 * ms, false},
		"one of its host does not read":      {[]Taking{{Lane: host, Sending: true, Turn: 15 * ms}, waits}, 2 * time.Second, true},
		"one of its host waits for longer":   {[]Taking{{Lane: host, Waiting: true, Turn: 5 * ms}, waits}, 20 * ms, false},
		"one of its host had a turn since":   {[]Taking{{Lane: host, Waiting: true, Turn: 15 * ms}, waits}, 20 * ms, true},
		"others had a turn a moment ago":     {[]Taking{{Lane: host, Sending: true, Turn: 15 * ms}, {Lane: other, Turn: 15 * ms}}, 20 * ms, false},
		"others had a turn before":           {[]Taking{{Lane: host, Sending: true, Turn: 15 * ms}, {Lane: other, Turn: 15 * ms}}, 500 * ms, true},
		"one of its host wants nothing":      {[]Taking{{Lane: host, Turn: 5 * ms}, waits}, 20 * ms, true},
	} {
		if got := MayTake(me, c.others, c.now); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// Ten peers share the lane of those who took too much, eight have one each, and
// all ask without an end: the ten get a ninth together.
func TestTakersShareOneTurn(t *testing.T) {
	var all []Taking
	for n := range 18 {
		lane := Lane{Taker: true}
		if n >= 10 {
			lane = laneOf(byte(n))
		}
		all = append(all, Taking{Lane: lane, Waiting: true, Turn: time.Duration(n)})
	}
	const each = 8 // quanta of a piece; the link sends one of each who is being sent something
	left, sent := make([]int, len(all)), make([]int, len(all))
	for now := time.Duration(100); now < 10_000; now++ {
		for n := range all {
			others := append(append([]Taking(nil), all[:n]...), all[n+1:]...)
			if !all[n].Sending && MayTake(all[n], others, now) {
				all[n].Sending, all[n].Turn, left[n] = true, now, each
			}
		}
		for n := range all {
			if left[n] > 0 {
				sent[n]++
				left[n]--
				all[n].Sending = left[n] > 0
			}
		}
	}
	takers, least := 0, sent[0]
	for n := range 10 {
		takers += sent[n]
		least = min(least, sent[n])
	}
	if takers > sent[10]*101/100 || least < takers/12 {
		t.Errorf("the takers were sent %v, %d together, each of the others %d", sent[:10], takers, sent[10])
	}
}
