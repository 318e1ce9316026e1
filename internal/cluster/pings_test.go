package cluster

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"viver.lan/internal/sleep"
)

func answer(seq uint32) []byte { return forge(label, msgAck, field{"SeqNo", seq}) }

// Only who was pinged answers, and not long after.
func TestPendingPings(t *testing.T) {
	var pending pendingPings
	filter, now := newPacketFilter(nil, &pending), time.Now()
	ping := forge(label, msgPing, field{"SeqNo", uint32(7)}, field{"Node", "x"})
	indirect := forge(label, msgIndirectPing, field{"SeqNo", uint32(8)}, field{"Node", "x"})
	pending.sent(ping, "10.0.0.1:7946", now)
	pending.sent(compound(ping[len(labelHeader):], indirect[len(labelHeader):]), "10.0.0.2:7946", now)
	for _, test := range []struct {
		packet []byte
		from   string
		ok     bool
	}{
		{answer(7), "10.0.0.1:7946", true},
		{answer(7), "[::ffff:10.0.0.1]:7946", true},
		{answer(7), "10.0.0.1:7947", false},
		{answer(7), "10.0.0.3:7946", false},
		{answer(8), "10.0.0.1:7946", false},
		{answer(8), "10.0.0.2:7946", true},
		{compound(answer(8)[len(labelHeader):], ping[len(labelHeader):]), "10.0.0.1:7946", false},
		{forge(label, msgNack, field{"SeqNo", uint32(8)}), "10.0.0.1:7946", false},
		{forge(label, msgAck), "10.0.0.1:7946", false},
	} {
		if err := filter.check(test.packet, netip.MustParseAddrPort(test.from), now); (err == nil) != test.ok {
			t.Errorf("%q from %s: %v", test.packet, test.from, err)
		}
	}
	for range 2 {
		now = now.Add(pendingTime)
		pending.sent(ping, "10.0.0.9:7946", now)
	}
	if pending.expects(answer(7)[len(labelHeader):], netip.MustParseAddrPort("10.0.0.1:7946")) || len(pending.current)+len(pending.previous) != 2 {
		t.Errorf("pings of long ago are remembered: %v, %v", pending.current, pending.previous)
	}
}

// A stranger that answers in its place does not keep a dead member in the list.
func TestForgedAcks(t *testing.T) {
	t.Parallel()
	members, kill := room(t, 133, 3)
	gone := members[2].self()
	kill[2]()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		const each = 80
		var packets [][]byte // memberlist counts from 1, so this is enough for minutes
		for first := range uint32(8) {
			var all [][]byte
			for seq := range uint32(each) {
				all = append(all, answer(first*each + seq)[len(labelHeader):])
			}
			packets = append(packets, compound(all...))
		}
		for sleep.For(ctx, 100*time.Millisecond) == nil {
			for _, c := range members[:2] {
				throw(t, c, packets...)
			}
		}
	}()
	for _, c := range members[:2] {
		waitFor(t, c, "its death is noticed", became(Dead, gone.ID))
	}
}
