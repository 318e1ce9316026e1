package vfield

import (
	"context"
	"fmt"
	"slices"
	"time"

	"viver.lan/internal/event"
	"viver.lan/internal/exchange"
	"viver.lan/internal/swarm"
)

// Status is a snapshot.
type Status struct {
	// Have is the number of pieces that this node can serve, Stored how many
	// of them are in its piece store, Pieces how many the image has.
	Have   int
	Stored int
	Pieces int
	// Budget and Used are bytes of the piece store.
	Budget int64
	Used   int64
	exchange.Stats
	// FromMedium is the bytes of payload read from the medium.
	FromMedium uint64
	// MediumBad lists the pieces that the medium cannot give; MediumGone says
	// that it does not answer at all.
	MediumBad  []int
	MediumGone bool
	// Waiting lists the pieces that reads wait for.
	Waiting []event.Waiting
	Peers   []exchange.PeerStatus
	// Pinned is how many pieces this node keeps for the network whatever it
	// reads itself.
	Pinned int
	// ProofFailures lists who did not prove the copies that it claims.
	ProofFailures []exchange.ProofFailure
	// Note is a sentence about the piece store when something is wrong with it.
	Note string
	// Independence of the network from its first node.
	Independence event.Independence
	// OutOfReach counts the pieces that no live machine in reach has.
	OutOfReach int
	// OriginAnswers says that the first node answers; true on the first node.
	OriginAnswers bool
}

// Status returns a snapshot.
func (v *Volume) Status() Status {
	s := Status{Stored: v.store.Count(), Pieces: v.info.NumPieces(), Budget: v.store.Budget(), Used: v.store.Used(), Waiting: v.waits(anyWait)}
	var neighbours []exchange.Neighbour
	v.swarm.Do(func(x *exchange.Exchange) {
		s.Peers, s.Stats = x.Status()
		s.ProofFailures, neighbours = x.ProofFailures(), x.Neighbours()
	})
	copies, nodes, unproved := v.replicas.census(neighbours)
	s.Independence = v.independence(copies, nodes, unproved)
	s.Pinned, s.Note = v.replicas.pinned(), v.store.note()
	if v.store.fitsAll() && !v.replicas.first {
		s.Pinned = s.Stored
	}
	s.OutOfReach, s.OriginAnswers = v.outOfReach()
	s.Have = s.Stored
	if v.medium != nil {
		s.FromMedium, s.MediumBad, s.MediumGone = v.medium.status()
		s.Have = 0
		for i := range s.Pieces {
			if v.has(i) {
				s.Have++
			}
		}
	}
	return s
}

// Independence tells whether the network can live without its first node: it
// can when live nodes other than the first keep every piece, as far as they
// prove it.
func (v *Volume) Independence() event.Independence {
	return v.independence(v.replicas.census(v.neighbours()))
}

func (v *Volume) independence(copies []int, nodes, unproved int) event.Independence {
	a := v.replicas.assignment.Load()
	all, missing := len(copies), 0
	for _, n := range copies {
		if n == 0 {
			missing++
		}
	}
	return event.Independence{
		Independent: missing == 0, Pieces: all, Missing: missing, Replicas: slices.Min(copies), Nodes: nodes, Unproved: unproved,
		Short: missing > 0 && len(a.Nodes()) > 0 && a.Offer() < v.info.Size, Offered: a.Offer(), Needed: v.info.Size,
	}
}

// outOfReach tells how many pieces nobody in reach has, and whether the first node
// answers.
func (v *Volume) outOfReach() (pieces int, origin bool) {
	v.swarm.Do(func(x *exchange.Exchange) { pieces, origin = x.OutOfReach() })
	return pieces, origin || v.replicas.first
}

// waits describes the waits that match.
func (v *Volume) waits(match func(*wait) bool) (out []event.Waiting) {
	for i, since := range v.waiting.since(match) {
		w := swarm.Ask(v.swarm, func(x *exchange.Exchange) event.Waiting { return x.Waiting(i) })
		w.Seconds = time.Since(since).Seconds()
		out = append(out, w)
	}
	return out
}

// report tells the log and the event readers how it goes.
func (v *Volume) report(ctx context.Context) error {
	t := time.NewTicker(reportEvery)
	defer t.Stop()
	var transfer event.Transfer
	var transferred time.Time
	var independence event.Independence
	var shortage shortage
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
		v.reportWaits()
		shortage.report(v)
		if v.medium != nil && v.medium.checkHang() {
			v.onMediumChange(0, v.info.NumPieces())
		}
		if ind := v.Independence(); ind.Independent != independence.Independent || independence.Pieces == 0 {
			independence = ind
			v.cfg.Events.Emit(ind)
			v.log.Info("independence of the first node", "independent", ind.Independent, "reason", ind.String())
		}
		if time.Since(transferred) < transferEach {
			continue
		}
		s := v.Status()
		now := event.Transfer{FromOrigin: s.FromOrigin, FromPeers: s.FromPeers, FromMedium: s.FromMedium, Sent: s.Sent,
			Have: s.Have, Pieces: s.Pieces, Peers: len(s.Peers)}
		if now != transfer {
			transfer, transferred = now, time.Now()
			v.cfg.Events.Emit(now)
		}
	}
}

// reportWaits says which reads wait, for what, and who was asked.
func (v *Volume) reportWaits() {
	for _, w := range v.waits((*wait).due) {
		v.cfg.Events.Emit(w)
		v.log.Warn(fmt.Sprintf("waiting for piece %d: %s", w.Piece, w),
			"waited", fmt.Sprintf("%.0fs", w.Seconds), "offset", v.info.PieceOffset(w.Piece), "asked", w.Asked)
	}
}

// shortage remembers since when pieces are on no machine in reach.
type shortage struct {
	since time.Time
	said  bool
}

// report says so when it lasts, and when it is over: at the start, and when a
// connection breaks for a moment, it is no news.
func (s *shortage) report(v *Volume) {
	pieces, origin := v.outOfReach()
	switch {
	case pieces == 0:
		if s.said {
			v.log.Info("all pieces are in reach again")
		}
		*s = shortage{}
	case s.since.IsZero():
		s.since = time.Now()
	case !s.said && time.Since(s.since) >= waitReport:
		s.said = true
		v.log.Warn(event.OutOfReach(pieces, v.info.NumPieces(), origin))
	}
}
