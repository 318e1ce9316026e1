package vfield

import (
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"viver.lan/internal/copies"
	"viver.lan/internal/exchange"
	"viver.lan/internal/identity"
	"viver.lan/internal/placement"
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm"
)

const (
	// stableAfter is how old an assignment must be before anything is
	// unpinned by it: by then the other nodes work by it, too.
	stableAfter = 5 * time.Second
	// sampleEvery is how often a piece is fetched to test others by.
	sampleEvery = 2 * time.Second
	// idleEvery is how often idle peers are looked for.
	idleEvery = 10 * time.Second
	// maxDoubts bounds the claims that are to be proved at a time.
	maxDoubts = 2000
)

// replicas is this node's part in the copies of the image that the network keeps:
// what it pins, beside what passes through its cache by use.
type replicas struct {
	image placement.Image
	self  identity.ID
	first bool // this is the first node, whose copies do not count
	store *store
	// changed says that other copies count, or are pinned.
	changed func()
	nodes   atomic.Int64 // of the network, as far as we were told

	// Of the goroutine that calls update.
	planner   *placement.Planner
	idle      placement.Idle
	idlers    map[identity.ID]bool
	idlersAt  time.Duration // when they were found
	sample    int           // see drawSample; -1 for none
	sampledAt time.Duration

	// Replaced as a whole, and not changed then.
	assignment atomic.Pointer[placement.Assignment]
	plan       atomic.Pointer[plan]
}

// plan is what a node with little room fetches whatever it reads.
type plan struct {
	pins   []bool
	pinned int // of them
	sample int
}

func newReplicas(cfg Config, s *store) *replicas {
	im := swarm.ImageOf(cfg.Info)
	r := &replicas{image: im, self: cfg.Key.ID(), first: cfg.First || cfg.Medium != nil, store: s, changed: cfg.Changed, planner: placement.NewPlanner(im), sample: -1}
	r.assignment.Store(placement.Assign(im, nil, 0))
	r.plan.Store(&plan{pins: make([]bool, im.Pieces), sample: -1})
	return r
}

// wants reports whether piece i is to be fetched whatever this node reads.
func (r *replicas) wants(i int) bool {
	k := r.plan.Load()
	return k.pins[i] || i == k.sample
}

// pinned is how many pieces are or will be pinned.
func (r *replicas) pinned() int { return r.plan.Load().pinned }

// keepFound pins the pieces of an earlier run until it is known who else has
// them.
func (r *replicas) keepFound() {
	if r.first || r.store.fitsAll() {
		return
	}
	for n, i := range r.store.Held() {
		if n < r.image.PinLimit(r.store.Budget()) {
			r.store.Pin(i)
		}
	}
}

// update works out what this node shall pin among its peers. canServe reports whether
// it can send a piece. It returns whose claims are to be proved: a pin hangs on them.
func (r *replicas) update(now time.Duration, peers []exchange.Neighbour, canServe func(i int) bool) []copies.Doubt {
	r.findIdle(now, peers, canServe)
	var members []placement.Node
	if !r.first {
		members = append(members, placement.Node{ID: r.self, Weight: r.store.Budget()})
	}
	for i := range peers {
		if p := &peers[i]; p.Kind == schedule.Node && p.Place && !r.idlers[p.ID] {
			members = append(members, placement.Node{ID: p.ID, Weight: p.Claim.Budget})
		}
	}
	r.planner.Copies = placement.Copies(max(int(r.nodes.Load()), len(members)))
	a := r.planner.Update(now, members)
	if r.assignment.Swap(a) != a {
		r.changed()
	}
	if r.store.fitsAll() {
		return nil // nothing is ever evicted
	}
	r.store.SetOthers(others(peers, r.image.Pieces))
	if r.first {
		return nil
	}
	r.drawSample(now, peers)
	return r.pin(a, now-r.planner.Since() >= stableAfter, peers)
}

// drawSample chooses a piece that this node fetches for no other reason than that
// others claim it of whom it holds nothing they claim, so that it can ask them for a
// proof: the piece that most of those claim.
func (r *replicas) drawSample(now time.Duration, peers []exchange.Neighbour) {
	if r.sample >= 0 && now-r.sampledAt < sampleEvery {
		return
	}
	r.sample, r.sampledAt = -1, now
	best, begin := 0, rand.IntN(r.image.Pieces)
	for i := range r.image.Pieces {
		p, count := (begin+i)%r.image.Pieces, 0
		for k := range peers {
			if n := &peers[k]; n.Untested && n.Kind == schedule.Node && n.Claim.Pieces.Has(p) {
				count++
			}
		}
		if count > best {
			best, r.sample = count, p
		}
	}
}

// findIdle notes which peers claim room and do not come for the pieces that are
// left to them.
func (r *replicas) findIdle(now time.Duration, peers []exchange.Neighbour, canServe func(i int) bool) {
	if r.idlers != nil && now-r.idlersAt < idleEvery {
		return
	}
	r.idlersAt, r.idlers = now, make(map[identity.ID]bool)
	for i := range peers {
		if p := &peers[i]; p.Kind == schedule.Node && r.isIdle(now, p, canServe) {
			r.idlers[p.ID] = true
		}
	}
}

func (r *replicas) isIdle(now time.Duration, p *exchange.Neighbour, canServe func(i int) bool) bool {
	a := r.assignment.Load()
	lacks, has, canSend := 0, 0, false
	if n := a.Index(p.ID); n >= 0 {
		for i := range r.image.Pieces {
			switch {
			case !a.Holds(n, i):
			case p.Claim.Pieces.Has(i):
				has++
			default:
				lacks++
				canSend = canSend || canServe(i)
			}
		}
	}
	return r.idle.Update(now, p.Machine, p.Claim.Pieces.Count(), canSend && lacks > has)
}

// pin pins what placement says, and returns the claims of others on which a pin hangs.
func (r *replicas) pin(a *placement.Assignment, stable bool, peers []exchange.Neighbour) []copies.Doubt {
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
		Image: r.image, Assignment: a, Self: r.self, Budget: r.store.Budget(), Stable: stable,
		Pinned: r.store.Pinned, Held: r.store.Has,
		Claims: func(n, p int) bool { return claimed[n] != nil && claimed[n].Has(p) },
		Proved: func(n, p int) bool { return proved[n] != nil && proved[n].Has(p) },
		Origin: func(p int) bool {
			return slices.ContainsFunc(origins, func(o *schedule.Set) bool { return o.Has(p) })
		},
	}
	k := &plan{pins: placement.Pins(situation), sample: r.sample}
	found := placement.Doubts(situation, k.pins)
	var doubts []copies.Doubt
	for _, d := range found[:min(len(found), maxDoubts)] {
		doubts = append(doubts, copies.Doubt{ID: a.Nodes()[d.Node].ID, Piece: d.Piece})
	}
	for i, pin := range k.pins {
		if pin {
			r.store.Pin(i)
			k.pinned++
		} else {
			r.store.Unpin(i)
		}
	}
	if r.plan.Swap(k).pinned != k.pinned {
		r.changed()
	}
	return doubts
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
func (r *replicas) census(peers []exchange.Neighbour) (copies []int, nodes, unproved int) {
	a := r.assignment.Load()
	copies = make([]int, r.image.Pieces)
	count := func(id identity.ID, budget int64, has func(i int) bool) {
		n, whole, kept := a.Index(id), r.image.Whole(budget), false
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
	if !r.first {
		count(r.self, r.store.Budget(), r.store.Has)
	}
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
