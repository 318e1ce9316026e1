package exchange

import (
	"bytes"
	"testing"

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

func TestRecordsAreAskedOfSomeNodes(t *testing.T) {
	x := newExchange(t)
	a, stranger := joinAsking(t, x, "10.0.0.1:1", "a"), join(t, x, "10.0.0.2:1", "")
	x.AskRecords(2)
	b := joinAsking(t, x, "10.0.0.3:1", "b")
	c := joinAsking(t, x, "10.0.0.4:1", "c")
	out := x.Commands()
	if recordRequests(out, a) != 1 || recordRequests(out, b) != 1 || recordRequests(out, c) != 0 || recordRequests(out, stranger) != 0 {
		t.Fatalf("asked a %d, b %d, c %d, the stranger %d times", recordRequests(out, a), recordRequests(out, b), recordRequests(out, c), recordRequests(out, stranger))
	}
	record := func(k schedule.Key, data string) []Command {
		x.Messages(k, []wire.Message{wire.Extension(wire.IDRecord, []byte(data))})
		return x.Commands()
	}
	out = record(a, "")
	if _, ok := find[Record](out); ok || recordRequests(out, c) != 1 {
		t.Error("one without a record: no other was asked")
	}
	if r, ok := find[Record](record(b, "read")); !ok || string(r.Data) != "read" || r.From != b {
		t.Errorf("record %q of %d", r.Data, r.From)
	}
	if _, ok := find[Record](record(b, "again")); ok {
		t.Error("a second record was taken")
	}
	if _, ok := find[Record](record(stranger, "unasked")); ok {
		t.Error("a record was taken of a peer that was not asked")
	}
	x.AskRecords(0)
	if _, ok := find[Record](record(c, "late")); ok {
		t.Error("a record was taken although no more are wanted")
	}
	if d := joinAsking(t, x, "10.0.0.5:1", "d"); recordRequests(x.Commands(), d) != 0 {
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
	if out := x.Commands(); recordRequests(out, a) != 1 || recordRequests(out, b) != 0 {
		t.Fatal("want one asked")
	}
	x.Disconnected(a, nil, true)
	out := x.Commands()
	if n := recordRequests(out, b) + recordRequests(out, c); n != 1 {
		t.Errorf("%d others were asked", n)
	}
	x.AskRecords(0)
	x.Disconnected(b, nil, true)
	if n := recordRequests(x.Commands(), c); n != 0 {
		t.Errorf("another was asked %d times though no more are wanted", n)
	}
}

// One that has no record and says so when no more are wanted has nobody else asked.
func TestNoRecordsAreAskedAfterTheEnd(t *testing.T) {
	x := newExchange(t)
	a := joinAsking(t, x, "10.0.0.1:1", "a")
	x.AskRecords(1)
	b := joinAsking(t, x, "10.0.0.2:1", "b")
	x.AskRecords(0)
	x.Messages(a, []wire.Message{wire.Extension(wire.IDRecord, nil)})
	if n := recordRequests(x.Commands(), b); n != 0 {
		t.Errorf("another was asked %d times", n)
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
