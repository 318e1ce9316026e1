package schedule

import "time"

// Lane is whom peers share their turn at an uplink with: those who come from
// one address share one, and all those share one who took more than they can
// need and gave nothing.
type Lane struct {
	Host  string // empty for those who took too much
	Taker bool
}

// Taking is what decides whether a peer is sent the next thing it asked for.
type Taking struct {
	Lane Lane
	// Turn is when its last turn began.
	Turn time.Duration
	// Sending: something is on its way to it.
	Sending bool
	// Waiting: it has asked for more.
	Waiting bool
}

// turnLimit is how long whoever does not take what it asked for keeps its lane.
const turnLimit = time.Second

// MayTake decides whether p's turn begins now. The links share themselves
// between lanes; within a lane only one peer is served at a time, in turn, as
// long as somebody of another lane wants something too.
func MayTake(p Taking, others []Taking, now time.Duration) bool {
	contended, first := false, true
	for _, q := range others {
		switch {
		case q.Lane != p.Lane:
			contended = contended || q.Sending || q.Waiting
		case q.Sending && now-q.Turn < turnLimit, q.Waiting && q.Turn < p.Turn:
			first = false
		}
	}
	return first || !contended
}
