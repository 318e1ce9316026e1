package exchange

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// joinAsking is join of a node that also knows boot records.
func joinAsking(t *testing.T, x *Exchange, addr, name string) schedule.Key {
	k := join(t, x, addr, name)
	h := x.byKey[k].hello
	h.M.RecordRequest, h.M.Record = wire.IDRecordRequest, wire.IDRecord
	x.Hello(k, h)
	x.Proved(k, identitytest.Key(t, name).Public(), true)
	return k
}

// recordRequests counts the requests for a record to peer k.
func recordRequests(commands []Command, k schedule.Key) (n int) {
	for _, m := range sent(commands, k, wire.Extended) {
		if m.ExtendedID == wire.IDRecordRequest {
			n++
		}
	}
	return n
}

// requested lets a tick pass at a time, and returns which of the peers are asked for records.
func requested(x *Exchange, at time.Duration, peers ...schedule.Key) (asked []schedule.Key) {
	x.SetTime(at)
	x.Tick()
	out := x.Commands()
	for _, k := range peers {
		for range recordRequests(out, k) {
			asked = append(asked, k)
		}
	}
	return asked
}

// answer has peer k send a record, and returns what is taken of it.
func answer(x *Exchange, k schedule.Key, record string) (taken string) {
	x.Messages(k, []wire.Message{wire.Extension(wire.IDRecord, []byte(record))})
	r, _ := find[Record](x.Commands())
	return string(r.Data)
}

func TestRecordsAreAskedOfSomeNodes(t *testing.T) {
	x := newExchange(t)
	a, stranger := joinAsking(t, x, "10.0.0.1:1", "a"), join(t, x, "10.0.0.2:1", "")
	x.AskRecords(2)
	b := joinAsking(t, x, "10.0.0.3:1", "b")
	c := joinAsking(t, x, "10.0.0.4:1", "c")
	all := []schedule.Key{a, stranger, b, c}
	if got := requested(x, 0, all...); !slices.Equal(got, []schedule.Key{a, b}) {
		t.Fatalf("asked %v of %v", got, all)
	}
	if answer(x, a, "") != "" || !slices.Equal(requested(x, 0, all...), []schedule.Key{c}) {
		t.Error("one without a record: no other was asked")
	}
	if got := answer(x, b, "read"); got != "read" {
		t.Errorf("record %q", got)
	}
	if answer(x, b, "again") != "" {
		t.Error("a second record was taken")
	}
	if answer(x, stranger, "unasked") != "" {
		t.Error("a record was taken of a peer that was not asked")
	}
	if got := requested(x, 0, all...); got != nil {
		t.Errorf("asked %v though one more is wanted and c was asked", got)
	}
	x.AskRecords(0)
	if answer(x, c, "late") != "" {
		t.Error("a record was taken although no more are wanted")
	}
	if d := joinAsking(t, x, "10.0.0.5:1", "d"); requested(x, time.Hour, append(all, d)...) != nil {
		t.Error("asked although no more are wanted")
	}
}

// Another is asked instead of one that leaves before it has answered.
func TestARecordIsAskedOfAnotherWhenOneLeaves(t *testing.T) {
	x := newExchange(t)
	a := joinAsking(t, x, "10.0.0.1:1", "a")
	x.AskRecords(1)
	b := joinAsking(t, x, "10.0.0.2:1", "b")
	c := joinAsking(t, x, "10.0.0.3:1", "c")
	if got := requested(x, 0, a, b, c); !slices.Equal(got, []schedule.Key{a}) {
		t.Fatalf("asked %v, want one", got)
	}
	x.Disconnected(a, nil, true)
	if got := requested(x, 0, b, c); !slices.Equal(got, []schedule.Key{b}) {
		t.Errorf("asked %v of %d and %d", got, b, c)
	}
	x.AskRecords(0)
	x.Disconnected(b, nil, true)
	if got := requested(x, 0, c); got != nil {
		t.Error("another was asked though no more are wanted")
	}
}

// Peers that say nothing, however many, do not keep a node from the records of others;
// and what one of them says late after all counts, but not beyond what is wanted.
func TestSilentPeersGiveTheirPlacesToOthers(t *testing.T) {
	const wanted = 4
	x := newExchange(t)
	var peers []schedule.Key
	for i := range 2*wanted + 2 {
		peers = append(peers, joinAsking(t, x, fmt.Sprintf("10.0.0.%d:1", i+1), string(rune('a'+i))))
	}
	x.AskRecords(wanted)
	for _, c := range []struct {
		what string
		at   time.Duration
		want []schedule.Key
	}{
		{"the first four", 0, peers[:wanted]},
		{"and no more while they have time", recordWithin - TickEvery, nil},
		{"the next four", recordWithin, peers[wanted : 2*wanted]},
		{"and no more while these have time", 2*recordWithin - TickEvery, nil},
		{"those that are left", 2 * recordWithin, peers[2*wanted:]},
		{"nobody twice", time.Hour, nil},
	} {
		if got := requested(x, c.at, peers...); !slices.Equal(got, c.want) {
			t.Errorf("%s: asked %v, want %v", c.what, got, c.want)
		}
	}
	taken := 0
	for _, k := range peers {
		if answer(x, k, "read") != "" {
			taken++
		}
	}
	if taken != wanted {
		t.Errorf("%d late records were taken, want %d", taken, wanted)
	}
}

func TestARecordIsGivenOnce(t *testing.T) {
	x := newExchange(t)
	k := joinAsking(t, x, "10.0.0.1:1", "a")
	x.Commands()
	x.SetRecord([]byte("read"))
	request := wire.Extension(wire.IDRecordRequest, nil)
	x.Messages(k, []wire.Message{request, request})
	given := sent(x.Commands(), k, wire.Extended)
	if len(given) != 1 || given[0].ExtendedID != wire.IDRecord || !bytes.Equal(given[0].Payload, []byte("read")) {
		t.Errorf("given %v", given)
	}
}
