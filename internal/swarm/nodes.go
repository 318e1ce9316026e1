package swarm

import (
	"time"

	"viver.lan/internal/copies"
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
	// ID is that of the node (identity.ID), once it has proved its key. Of a
	// stranger it is what the stranger says on the wire, which is longer.
	ID   string
	Kind schedule.Kind
	// Machine is what it runs on, as far as can be told from here.
	Machine string
	// Stalled peers owe data and send none.
	Stalled bool
	// Claim is what it says that it keeps.
	Claim Claim
	// Counts says that its claim counts as copies: the peer proves again and
	// again some of it, and no other peer of its machine counts already. Place
	// says that pieces may be left to it to keep; see package copies for both.
	Counts, Place bool
	// Untested says that it claims pieces, and none that this node holds too: so
	// nothing can be asked of it.
	Untested bool
	// Proved are the pieces of which it proved each one not long ago.
	Proved schedule.Set
}

// Neighbours returns the peers that were heard from lately, in no order.
func (s *Swarm) Neighbours() []Neighbour {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Neighbour
	for _, p := range s.peers {
		if p.ready && s.live(p) {
			out = append(out, s.neighbour(p))
		}
	}
	return out
}

func (s *Swarm) neighbour(p *peer) Neighbour {
	ledger, id := s.copies.ledger, p.nodeID()
	n := Neighbour{ID: id, Kind: p.kind, Machine: p.machine, Stalled: s.table.Stalled(p.key), Counts: ledger.Counts(id), Place: ledger.Place(id),
		Claim:  Claim{Budget: p.hello.Budget, Pieces: s.table.PeerPieces(p.key).Clone()},
		Proved: schedule.NewSet(s.cfg.Info.NumPieces())}
	if ledger.Standing(id) == copies.Unproved && n.Claim.Pieces.Count() > 0 {
		_, common := n.Claim.Pieces.Common(s.table.Held(), func(int) int { return 0 })
		n.Untested = !common
	}
	for _, i := range ledger.ProvedPieces(id, s.now()) {
		n.Proved.Set(i, n.Claim.Pieces.Has(i))
	}
	return n
}

// nodeID is a Neighbour's.
func (p *peer) nodeID() string {
	if p.proved {
		return string(p.node)
	}
	return string(p.id[:])
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
			p.say(s.helloTo(p).Append(nil)) // BEP 10 allows it more than once
		}
	}
	s.setOwned()
}

// helloTo is how this node introduces itself to p.
func (s *Swarm) helloTo(p *peer) wire.Hello {
	key := s.cfg.Key.Public()
	h := wire.Hello{
		Client: "VIVER", Queue: maxQueue - 6, Port: s.listen.Port(),
		Block: s.cfg.Info.PieceLength, Budget: s.cfg.Budget, Key: key[:], Nonce: p.proof.nonce,
	}
	h.M.Pex, h.M.DontHave, h.M.Urgent, h.M.Proof = wire.IDPex, wire.IDDontHave, wire.IDUrgent, wire.IDProof
	h.M.Challenge, h.M.Answer = wire.IDChallenge, wire.IDAnswer
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
	nodes := []placement.Node{{ID: string(s.cfg.Key.ID()), Weight: max(s.cfg.Budget, 1)}}
	for _, p := range s.peers {
		if p.kind == schedule.Node && !p.closing && s.table.Trusted(p.key) && !s.disproved(p) {
			nodes = append(nodes, placement.Node{ID: p.nodeID(), Weight: max(p.hello.Budget, 1)})
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
