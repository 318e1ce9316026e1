package exchange

import (
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// Boot records: what a machine read of its root disk while it booted (package
// bootrecord). A node that boots asks some others for theirs, to fetch along them, and
// gives its own to those that ask later. They are advice: what is fetched is verified
// as always.

type records struct {
	own []byte // what others get, nil for none
	ask int    // how many more are wanted
}

// recordState is how far a peer was asked for its record.
type recordState uint8

const (
	recordUnasked recordState = iota
	recordAsked
	recordAnswered
)

// Record is a peer's boot record, in whatever form that has: it is not checked.
type Record struct {
	From schedule.Key
	Data []byte
}

// SetRecord sets the boot record that peers get who ask for it.
func (x *Exchange) SetRecord(record []byte) { x.records.own = record }

// AskRecords has so many nodes asked for their boot records, those that are here
// and those to come; each record is a command Record. None ends that: what those that
// were asked answer later counts no more.
func (x *Exchange) AskRecords(n int) {
	x.records.ask = n
	for _, p := range x.peers {
		if n == 0 && p.record == recordAsked {
			p.record = recordAnswered
		}
		x.askRecord(p)
	}
}

func (x *Exchange) askRecord(p *peer) {
	if x.records.ask == 0 || p.record != recordUnasked || !p.ready || p.closing || p.kind == schedule.Stranger || p.hello.M.RecordRequest == 0 {
		return
	}
	x.records.ask--
	p.record = recordAsked
	p.sendExtended(p.hello.M.RecordRequest, nil)
}

// onRecordRequest gives the peer our record, once.
func (x *Exchange) onRecordRequest(p *peer) {
	if !p.recordGiven {
		p.recordGiven = true
		p.sendExtended(p.hello.M.Record, x.records.own)
	}
}

// onRecord takes the record that the peer was asked for; an empty one says that it has
// none.
func (x *Exchange) onRecord(p *peer, m wire.Message) {
	if p.record != recordAsked {
		return
	}
	if len(m.Payload) == 0 {
		x.recordLost(p)
		return
	}
	p.record = recordAnswered
	x.do(Record{p.key, m.Payload})
}

// recordLost has another asked instead of a peer that was asked and will give none.
func (x *Exchange) recordLost(p *peer) {
	if p.record == recordAsked {
		p.record = recordAnswered
		x.AskRecords(x.records.ask + 1)
	}
}
