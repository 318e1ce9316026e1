package swarm

import (
	"time"

	"viver.lan/internal/metainfo"
	"viver.lan/internal/placement"
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// ImageOf returns an image in the terms of placement.
func ImageOf(info *metainfo.Info) placement.Image {
	return placement.Image{Pieces: info.NumPieces(), PieceLength: info.PieceLength, Size: info.Size}
}

// Neighbour is a live peer as placement sees it.
type Neighbour struct {
	// ID is the peer's ID on the wire; see NeighbourID.
	ID   string
	Kind schedule.Kind
	// Budget is how many bytes of pieces it keeps.
	Budget int64
	// Stalled peers owe data and send none.
	Stalled bool
	// Pieces are those it has.
	Pieces schedule.Set
}

// NeighbourID returns the ID that a node of this name has among Neighbours.
func NeighbourID(node string) string {
	id := peerID(node)
	return string(id[:])
}

// Neighbours returns the peers that were heard from lately, in no order.
func (s *Swarm) Neighbours() []Neighbour {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Neighbour
	for k, p := range s.peers {
		if p.ready && s.live(p) {
			out = append(out, Neighbour{ID: string(p.id[:]), Kind: p.kind, Budget: p.hello.Budget,
				Stalled: s.table.Stalled(k), Pieces: s.table.PeerPieces(k).Clone()})
		}
	}
	return out
}

// SetWanted says which of the pieces from lo up to hi shall be fetched when
// there is nothing better to do.
func (s *Swarm) SetWanted(lo, hi int, want func(i int) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := false
	for i := max(lo, 0); i < min(hi, s.cfg.Info.NumPieces()); i++ {
		_, paused := s.paused[i]
		switch w := want(i); {
		case !w:
			delete(s.paused, i)
			s.table.Want(i, false)
		case !paused && !s.table.Wanted(i):
			s.table.Want(i, true)
			changed = true
		}
	}
	if changed {
		s.fillAll()
	}
}

// SetBudget tells the peers how many bytes of pieces this node keeps now.
func (s *Swarm) SetBudget(budget int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cfg.Budget == budget {
		return
	}
	s.cfg.Budget = budget
	for _, p := range s.peers {
		if p.extended && !p.closing {
			p.say(s.hello().Append(nil)) // BEP 10 allows it more than once
		}
	}
	s.setOwned()
}

// hello is how this node introduces itself.
func (s *Swarm) hello() wire.Hello {
	h := wire.Hello{
		Client: "VIVER", Queue: maxQueue - 6, Port: s.listen.Port(),
		Block: s.cfg.Info.PieceLength, Budget: s.cfg.Budget,
	}
	h.M.Pex, h.M.DontHave, h.M.Urgent = wire.IDPex, wire.IDDontHave, wire.IDUrgent
	if s.cfg.Origin {
		h.Origin = 1
	}
	return h
}

// promptly bounds the work, in nodes times pieces, that is done while the peers
// wait; more is done once a second.
const promptly = 1 << 19

// ownedShare bounds the part of the time that ownership may take, as one in so
// many: peers that come, go and change their minds must not hold up the others.
const ownedShare = 20

// setOwned lets ownership follow a change among the peers: at once, or soon if
// that was done a moment ago.
func (s *Swarm) setOwned() {
	s.ownedLate = true
	if s.muchOwned() {
		return
	}
	if wait := s.ownedNext - s.now(); wait > 0 {
		s.flushWithin(wait)
		return
	}
	s.findOwned()
}

// muchOwned reports whether ownership is too much to be found while peers wait.
func (s *Swarm) muchOwned() bool { return len(s.peers)*s.cfg.Info.NumPieces() > promptly }

// findOwned computes which pieces this node takes from the origin: those that
// it is the first to keep among the nodes it is connected to.
func (s *Swarm) findOwned() {
	s.ownedLate = false
	began := s.now()
	defer func() { s.ownedNext = s.now() + max(10*time.Millisecond, ownedShare*(s.now()-began)) }()
	if s.cfg.Origin {
		s.table.SetOwned(func(int) bool { return false })
		return
	}
	im := ImageOf(s.cfg.Info)
	whole := im.Whole(s.cfg.Budget)
	nodes := []placement.Node{{ID: string(s.id[:]), Weight: max(s.cfg.Budget, 1)}}
	for _, p := range s.peers {
		if p.kind == schedule.Node && !p.closing && s.table.Trusted(p.key) {
			nodes = append(nodes, placement.Node{ID: string(p.id[:]), Weight: max(p.hello.Budget, 1)})
			whole = whole && im.Whole(p.hello.Budget)
		}
	}
	if whole { // the common case, and the cheap one
		ring := placement.NewRing(nodes)
		s.table.SetOwned(func(i int) bool { return ring.Owner(i) == 0 })
		return
	}
	a := placement.Assign(im, nodes, placement.Copies(len(nodes)))
	self := a.Index(nodes[0].ID)
	s.table.SetOwned(func(i int) bool { return a.Owner(i) == self })
}
