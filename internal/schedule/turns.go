package schedule

import (
	"net/netip"
	"time"
)

// Lane is whom peers share their turn at an uplink with: those who come from
// one address share one, and all those share one who took more than they can
// need and gave nothing.
type Lane struct {
	Host  netip.Addr // not valid for those who took too much
	Taker bool
}

// Taking is what decides whether a peer is sent the next thing it asked for.
type Taking struct {
	Lane Lane
	// Turn is when its last turn began.
	Turn time.Duration
	// Sending: something is on its way to it, here or in its socket.
	Sending bool
	// Waiting: it has asked for more.
	Waiting bool
}

const (
	// turnLimit is how long whoever does not take what it asked for keeps its
	// lane.
	turnLimit = time.Second
	// turnRecent is for how long a lane that wants nothing still counts: nodes
	// ask for little at a time, and what others fill the link with meanwhile
	// goes before what they ask for next.
	turnRecent = 200 * time.Millisecond
)

// MayTake decides whether p's turn begins now. The links share themselves
// between lanes; within a lane only one peer is served at a time, in turn, as
// long as somebody of another lane wants something too, or did a moment ago.
func MayTake(p Taking, others []Taking, now time.Duration) bool {
	contended, first := false, true
	for _, q := range others {
		switch {
		case q.Lane != p.Lane:
			contended = contended || q.Sending || q.Waiting || q.Turn > 0 && now-q.Turn < turnRecent
		case q.Sending && now-q.Turn < turnLimit, q.Waiting && q.Turn < p.Turn:
			first = false
		}
	}
	return first || !contended
}
