package exchange

import (
	"time"

	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// Boot records: what a machine read of its root disk while it booted (package
// bootrecord). A node that boots asks some others for theirs, to fetch along them, and
// gives its own to those that ask later. They are advice: what is fetched is verified
// as always.

type records struct {
	own    []byte // what others get, nil for none
	wanted int    // how many more of others
}

// recordWithin is how long a peer has for its record until another is asked, too. One
// that is well answers at once, but behind the blocks that it sends.
const recordWithin = 3 * time.Second

// recordState is how far a peer was asked for its record.
type recordState uint8

const (
	recordUnasked recordState = iota
	recordAsked
	recordLate // another was asked instead; if its record still comes, it is welcome
	recordAnswered
)

// Record is a peer's boot record, in whatever form that has: it is not checked.
type Record struct{ Data []byte }

// SetRecord sets the boot record that peers get who ask for it.
func (x *Exchange) SetRecord(record []byte) { x.records.own = record }

// AskRecords has so many boot records asked for, of nodes that are here and those to
// come; each is a command Record. None ends that: what those that were asked answer
// later counts no more.
func (x *Exchange) AskRecords(n int) { x.records.wanted = n }

// askRecords asks as many peers at a time as records are wanted, each once. One that
// leaves, has none or is late gives its place to the next.
func (x *Exchange) askRecords() {
	if x.records.wanted == 0 {
		return
	}
	places := x.records.wanted
	for _, p := range x.peers {
		if p.record == recordAsked && x.now-p.recordAsked >= recordWithin {
			p.record = recordLate
		}
		if p.record == recordAsked {
			places--
		}
	}
	for _, p := range x.peers {
		if places > 0 && p.mayHaveRecord() {
			places--
			p.record, p.recordAsked = recordAsked, x.now
			p.sendExtended(p.hello.M.RecordRequest, nil)
		}
	}
}

// mayHaveRecord reports whether p is a node that was not asked for its record yet.
func (p *peer) mayHaveRecord() bool {
	return p.record == recordUnasked && p.ready && !p.closing && p.kind != schedule.Stranger && p.hello.M.RecordRequest != 0
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
	if p.record != recordAsked && p.record != recordLate {
		return
	}
	p.record = recordAnswered
	if len(m.Payload) > 0 && x.records.wanted > 0 {
		x.records.wanted--
		x.do(Record{m.Payload})
	}
}
