package vfield

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/copies"
	"viver.lan/internal/exchange"
	"viver.lan/internal/piecestore"
	"viver.lan/internal/placement"
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm"
)

const (
	// placeEvery is how often a node looks at what it shall keep.
	placeEvery = time.Second
	// settledAfter is how old an assignment must be before anything is
	// unpinned by it: by then the other nodes work by it, too.
	settledAfter = 5 * time.Second
	// unreadableLimit is how many pieces the store may fail to give before
	// another place is used instead.
	unreadableLimit = 3
	// distrustEvery is how often a store that fails now and then has to prove
	// all it holds.
	distrustEvery = time.Minute
	// minStore is how many pieces a store must have room for to be of use.
	minStore = 8
)

// share is what this node keeps for the network: its part of the image, which
// it pins, beside what passes through its cache by use.
type share struct {
	image  placement.Image
	self   string // among the swarm's neighbours
	keeper *placement.Planner
	idle   placement.Idle
	idlers map[string]bool // by ID, as it was
	looked time.Duration   // then
	nodes  atomic.Int64    // of the network, as far as we were told

	mu         sync.Mutex
	assignment *placement.Assignment
	pins       []bool
	ahead      [2]int // what a reader has fetched ahead: from, to
	sample     sample
	budget     int64 // as told to the peers
	unreadable int
	distrusted time.Time // when all pieces began to be hashed again
	rehash     bool      // that is still to be done
	note       string    // a sentence about the store, for people
	moved      bool      // the store's file failed and is not used any more
}

func newShare(cfg Config) *share {
	im := swarm.ImageOf(cfg.Info)
	return &share{image: im, self: string(cfg.Key.ID()), keeper: placement.NewPlanner(im), budget: cfg.Store.Budget(),
		assignment: placement.Assign(im, nil, 0), pins: make([]bool, im.Pieces)}
}

// roomy reports whether the store can hold the whole image.
func (v *Volume) roomy() bool { return v.share.image.Whole(v.store.Budget()) }

// keepShare keeps this node's part of the image pinned as nodes come and go.
func (v *Volume) keepShare(ctx context.Context) error {
	t := time.NewTicker(placeEvery)
	defer t.Stop()
	for begin := time.Now(); ; {
		if v.share.takeRehash() {
			if err := v.recheck(ctx); err != nil {
				return err
			}
		}
		v.place(time.Since(begin))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

// place works out what this node shall pin and fetch now.
func (v *Volume) place(now time.Duration) {
	s := v.share
	v.checkStore()
	peers := swarm.Ask(v.swarm, (*exchange.Exchange).Neighbours)
	var members []placement.Node
	if !v.first() {
		members = append(members, placement.Node{ID: s.self, Weight: v.store.Budget()})
	}
	v.findIdle(now, peers)
	for i := range peers {
		if p := &peers[i]; p.Kind == schedule.Node && p.Place && !s.idlers[p.ID] {
			members = append(members, placement.Node{ID: p.ID, Weight: p.Claim.Budget})
		}
	}
	s.keeper.Copies = placement.Copies(max(int(s.nodes.Load()), len(members)))
	a := s.keeper.Update(now, members)
	s.mu.Lock()
	s.assignment = a
	s.mu.Unlock()
	if !v.roomy() { // else nothing is ever evicted
		v.store.SetOthers(others(peers, s.image.Pieces))
	}
	switch {
	case v.medium != nil:
	case v.roomy():
		v.swarm.Do(func(x *exchange.Exchange) { x.Want(0, s.image.Pieces, func(int) bool { return true }) })
	case !v.first():
		v.drawSample(now, peers)
		v.pin(a, now-s.keeper.Since() >= settledAfter, peers)
	}
}

// sampleEvery is how often a piece is fetched to test others by.
const sampleEvery = 2 * time.Second

// sample is a piece that this node fetches for no other reason than that others
// claim it of whom it holds nothing they claim: so it can ask them for a proof.
type sample struct {
	piece int
	since time.Duration
	drawn bool
}

// drawSample chooses the sample: the piece that most of those claim.
func (v *Volume) drawSample(now time.Duration, peers []exchange.Neighbour) {
	s := v.share
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sample.drawn && now-s.sample.since < sampleEvery {
		return
	}
	s.sample = sample{}
	best, begin := 0, rand.IntN(s.image.Pieces)
	for i := range s.image.Pieces {
		p, count := (begin+i)%s.image.Pieces, 0
		for k := range peers {
			if n := &peers[k]; n.Untested && n.Kind == schedule.Node && n.Claim.Pieces.Has(p) {
				count++
			}
		}
		if count > best {
			best, s.sample = count, sample{piece: p, since: now, drawn: true}
		}
	}
}

// idleEvery is how often it is looked who is idle.
const idleEvery = 10 * time.Second

// findIdle notes which peers claim room and do not come for the pieces that are
// left to them.
func (v *Volume) findIdle(now time.Duration, peers []exchange.Neighbour) {
	s := v.share
	if s.idlers != nil && now-s.looked < idleEvery {
		return
	}
	s.looked, s.idlers = now, make(map[string]bool)
	s.mu.Lock()
	a := s.assignment
	s.mu.Unlock()
	for i := range peers {
		if p := &peers[i]; p.Kind == schedule.Node && v.idle(now, a, p) {
			s.idlers[p.ID] = true
		}
	}
}

func (v *Volume) idle(now time.Duration, a *placement.Assignment, p *exchange.Neighbour) bool {
	lacks, has, here := 0, 0, false
	if n := a.Index(p.ID); n >= 0 {
		for i := range v.share.image.Pieces {
			switch {
			case !a.Holds(n, i):
			case p.Claim.Pieces.Has(i):
				has++
			default:
				lacks++
				here = here || (pieces{v}).Has(i)
			}
		}
	}
	return v.share.idle.Update(now, p.Machine, p.Claim.Pieces.Count(), here && lacks > has)
}

// maxDoubts bounds the claims that are to be proved at a time.
const maxDoubts = 2000

// pin pins what placement says, and has it fetched. Others' claims on which a pin
// hangs are asked to be proved.
func (v *Volume) pin(a *placement.Assignment, settled bool, peers []exchange.Neighbour) {
	s := v.share
	claimed, proved := make([]*schedule.Set, len(a.Nodes())), make([]*schedule.Set, len(a.Nodes()))
	var origins []*schedule.Set
	for i := range peers {
		p := &peers[i]
		n := a.Index(p.ID)
		switch {
		case p.Stalled || !p.Counts:
		case p.Kind == schedule.Origin:
			origins = append(origins, &p.Claim.Pieces)
		case p.Kind == schedule.Node && n >= 0:
			claimed[n], proved[n] = &p.Claim.Pieces, &p.Proved
		}
	}
	situation := placement.Situation{
		Image: s.image, Assignment: a, Self: s.self, Budget: v.store.Budget(), Stable: settled,
		Pinned: v.store.Pinned, Held: v.store.Has,
		Claims: func(n, p int) bool { return claimed[n] != nil && claimed[n].Has(p) },
		Proved: func(n, p int) bool { return proved[n] != nil && proved[n].Has(p) },
		Origin: func(p int) bool {
			for _, o := range origins {
				if o.Has(p) {
					return true
				}
			}
			return false
		},
	}
	pins := placement.Pins(situation)
	var doubts []copies.Doubt
	for _, d := range placement.Doubts(situation, pins) {
		if len(doubts) < maxDoubts {
			doubts = append(doubts, copies.Doubt{ID: a.Nodes()[d.Node].ID, Piece: d.Piece})
		}
	}
	v.swarm.Do(func(x *exchange.Exchange) { x.Doubt(doubts) })
	for i, pin := range pins {
		if pin {
			v.store.Pin(i)
		} else {
			v.store.Unpin(i)
		}
	}
	s.mu.Lock()
	s.pins = pins
	s.mu.Unlock()
	v.want(0, s.image.Pieces)
}

// want tells the swarm which of the pieces from lo up to hi to fetch.
func (v *Volume) want(lo, hi int) {
	v.share.mu.Lock()
	pins, ahead, sample := v.share.pins, v.share.ahead, v.share.sample
	v.share.mu.Unlock()
	want := func(i int) bool {
		return pins[i] || ahead[0] <= i && i < ahead[1] || sample.drawn && sample.piece == i
	}
	v.swarm.Do(func(x *exchange.Exchange) { x.Want(lo, hi, want) })
}

// readAheadOf has the pieces that follow piece i fetched, or none when ahead
// is 0. They take a part of the cache only, so that they do not push each
// other out.
func (v *Volume) readAheadOf(i, ahead int) {
	s := v.share
	s.mu.Lock()
	pinned := 0
	for _, p := range s.pins {
		if p {
			pinned++
		}
	}
	cache := int(v.store.Budget()/v.info.PieceLength) - pinned
	was := s.ahead
	s.ahead = [2]int{i + 1, i + 1 + min(ahead, max(cache/4, 0))}
	is := s.ahead
	s.mu.Unlock()
	if was != is {
		v.want(was[0], was[1])
		v.want(is[0], is[1])
	}
}

// keepFound pins the pieces of an earlier run until it is known who else has
// them.
func (v *Volume) keepFound() {
	if v.roomy() || v.first() {
		return
	}
	for n, i := range v.store.Held() {
		if n < v.share.image.PinLimit(v.store.Budget()) {
			v.store.Pin(i)
		}
	}
}

// checkStore reacts to a store that has less room than it had.
func (v *Volume) checkStore() {
	s, budget := v.share, v.store.Budget()
	if budget < min(minStore*v.info.PieceLength, v.info.Size) && budget < s.budget {
		v.storeFails(errors.New("its file system is full"))
		budget = v.store.Budget()
	}
	s.mu.Lock()
	was := s.budget
	s.budget = budget
	if budget < was && !s.moved {
		s.note = fmt.Sprintf("the file system of the piece store is full: pieces take %s from now on, not %s", mebi(budget), mebi(was))
		v.log.Warn(s.note)
	}
	s.mu.Unlock()
	v.swarm.Do(func(x *exchange.Exchange) { x.SetBudget(budget) })
}

// doubt reports whether what the store holds shall be hashed again, because it
// has failed now and not only a moment ago.
func (s *share) doubt() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.distrusted.IsZero() && time.Since(s.distrusted) < distrustEvery {
		return false
	}
	s.distrusted, s.rehash = time.Now(), true
	return true
}

// inDoubt reports whether the store has failed before.
func (s *share) inDoubt() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.distrusted.IsZero()
}

// takeRehash reports whether all pieces are to be hashed again now.
func (s *share) takeRehash() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() { s.rehash = false }()
	return s.rehash
}

// storeStrike counts a piece that the store should have given and could not.
// After a few its file is given up.
func (v *Volume) storeStrike(err error) {
	v.share.mu.Lock()
	v.share.unreadable++
	failing := v.share.unreadable >= unreadableLimit
	v.share.mu.Unlock()
	if failing {
		v.storeFails(err)
	}
}

// storeError looks at an error of the store's: a file that cannot be written
// is given up for another one.
func (v *Volume) storeError(err error) {
	if err == nil || errors.Is(err, piecestore.ErrFull) || errors.Is(err, unix.ENOSPC) {
		return
	}
	v.storeFails(err)
}

// storeFails goes on in memory, if there is any for it, without what the
// store's file held.
func (v *Volume) storeFails(why error) {
	s := v.share
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.moved || v.cfg.Fallback.Path == "" {
		return
	}
	s.moved = true
	lost, err := v.store.MoveTo(v.cfg.Fallback.Path, v.cfg.Fallback.Budget)
	if err != nil {
		v.log.Error("the cache disk fails, and so does memory instead", "why", why, "err", err)
		return
	}
	for _, i := range lost {
		v.swarm.Changed(i)
	}
	s.note = fmt.Sprintf("the cache disk is not used any more (%v): pieces are kept in memory, %s at most", why, mebi(v.store.Budget()))
	v.log.Error(s.note, "pieces lost", len(lost))
}

// status returns how many pieces are or will be pinned, and what is to be said.
func (s *share) status() (pinned int, note string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.pins {
		if p {
			pinned++
		}
	}
	return pinned, s.note
}

// others counts the nodes other than the first that have each piece, of those
// whose claims count.
func others(peers []exchange.Neighbour, pieces int) []uint8 {
	count := make([]uint8, pieces)
	for i := range peers {
		if p := &peers[i]; p.Kind == schedule.Node && !p.Stalled && p.Counts {
			for n := range count {
				if count[n] < 255 && p.Claim.Pieces.Has(n) {
					count[n]++
				}
			}
		}
	}
	return count
}

// census counts the copies that stay: those on live nodes other than the
// first which keep the whole image, or shall keep the piece, and prove that they
// hold what they claim. unproved counts the nodes whose claims do not count.
func (v *Volume) census() (copies []int, nodes, unproved int) {
	s := v.share
	s.mu.Lock()
	a := s.assignment
	s.mu.Unlock()
	copies = make([]int, s.image.Pieces)
	count := func(id string, budget int64, has func(i int) bool) {
		n, whole, kept := a.Index(id), s.image.Whole(budget), false
		for i := range copies {
			if (whole || n >= 0 && a.Holds(n, i)) && has(i) {
				copies[i]++
				kept = true
			}
		}
		if kept {
			nodes++
		}
	}
	if !v.first() {
		count(s.self, v.store.Budget(), v.store.Has)
	}
	peers := swarm.Ask(v.swarm, (*exchange.Exchange).Neighbours)
	for i := range peers {
		switch p := &peers[i]; {
		case p.Kind != schedule.Node || p.Stalled:
		case p.Counts:
			count(p.ID, p.Claim.Budget, p.Claim.Pieces.Has)
		case p.Claim.Pieces.Count() > 0:
			unproved++
		}
	}
	return copies, nodes, unproved
}
