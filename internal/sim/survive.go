package sim

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"viver.lan/internal/identity"
	"viver.lan/internal/placement"
	"viver.lan/internal/schedule"
)

// Churn describes a network that lives on by itself: the first node has left,
// no node has room for the whole image, machines lose their power and come
// back empty. Only pinned copies count; what caches hold besides is luck.
type Churn struct {
	Nodes, Pieces int
	PieceBytes    int64
	Copies        int     // pinned of each piece
	Link          float64 // payload bytes/s, each way
	// Lifetime is the mean time until a machine loses its power, Reboot how
	// long it is away.
	Lifetime, Reboot time.Duration
	// Liars are machines that claim every piece and all the room there is, hold
	// nothing, and leave together in the middle of Length.
	Liars int
	// Strike kills this part of the nodes at once, in the middle of Length.
	Strike float64
	Length time.Duration
	Seed   uint64
}

func (c Churn) withDefaults() Churn {
	c.Nodes = cmp.Or(c.Nodes, 100)
	c.Pieces = cmp.Or(c.Pieces, 512)
	c.PieceBytes = cmp.Or(c.PieceBytes, 1<<20)
	c.Copies = cmp.Or(c.Copies, 4)
	c.Link = cmp.Or(c.Link, 125e6)
	c.Lifetime = cmp.Or(c.Lifetime, time.Hour)
	c.Reboot = cmp.Or(c.Reboot, time.Minute)
	c.Length = cmp.Or(c.Length, 10*time.Minute)
	return c
}

// Survival is what came of it.
type Survival struct {
	Deaths  int `json:"deaths"`
	Lost    int `json:"lost"`    // pieces of which no copy was left
	Fewest  int `json:"fewest"`  // copies of any piece not lost, in the end
	Fetched int `json:"fetched"` // copies made
	Decided int `json:"decided"` // assignments
}

const (
	seeEvery = time.Second // as package vfield
	settled  = 10 * time.Second
	retry    = time.Second // after a source turned out to be dead
)

// member is a machine that pins pieces.
type member struct {
	liar     bool
	node     placement.Node
	alive    bool
	seen     bool // by the others
	life     int32
	held     schedule.Set
	fetching schedule.Set
	link     link
}

type survival struct {
	cfg     Churn
	now     time.Duration
	queue   queue
	rng     *rand.Rand
	image   placement.Image
	planner *placement.Planner
	current *placement.Assignment
	members []*member // in the order of their IDs
	number  []int     // of the nodes of current
	copies  []int     // per piece, on living machines
	dirty   schedule.Set
	lost    schedule.Set
	out     Survival
}

// Survive runs c. Every node works by the same Planner, because all see the
// same members, decides by its own Pins what to keep, fetches what it lacks
// from a machine that is said to have it, and drops what it need not keep.
func Survive(ctx context.Context, cfg Churn) (Survival, error) {
	cfg = cfg.withDefaults()
	if cfg.Copies < 1 || cfg.Nodes <= cfg.Copies {
		return Survival{}, fmt.Errorf("keep %d copies on %d nodes: more nodes than copies are needed", cfg.Copies, cfg.Nodes)
	}
	s := &survival{
		cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x5355)), copies: make([]int, cfg.Pieces),
		image: placement.Image{Pieces: cfg.Pieces, PieceLength: cfg.PieceBytes, Size: cfg.PieceBytes * int64(cfg.Pieces)},
		dirty: schedule.NewSet(cfg.Nodes + cfg.Liars), lost: schedule.NewSet(cfg.Pieces),
	}
	s.planner = placement.NewPlanner(s.image)
	s.planner.Copies = cfg.Copies
	s.populate()
	for s.now < cfg.Length && ctx.Err() == nil {
		e, ok := s.queue.pop()
		if !ok || e.at > cfg.Length {
			break
		}
		s.now = e.at
		s.handle(e)
	}
	s.out.Lost, s.out.Fewest = s.lost.Count(), cfg.Nodes
	for p, n := range s.copies {
		if !s.lost.Has(p) {
			s.out.Fewest = min(s.out.Fewest, n)
		}
	}
	return s.out, ctx.Err()
}

// populate makes the machines, each with room for twice its share, and the
// copies they pin to begin with.
func (s *survival) populate() {
	share := int64((2*s.cfg.Copies*s.cfg.Pieces + s.cfg.Nodes - 1) / s.cfg.Nodes)
	budget := max(share*4/3, share+4) + 1
	for n := range s.cfg.Nodes {
		m := &member{
			node: placement.Node{ID: named("node-%06d", n), Weight: min(budget*s.cfg.PieceBytes, s.image.Size-1)}, alive: true, seen: true,
			held: schedule.NewSet(s.cfg.Pieces), fetching: schedule.NewSet(s.cfg.Pieces),
		}
		m.link.up, m.link.down = s.cfg.Link, s.cfg.Link
		s.members = append(s.members, m)
		s.mortal(int32(n))
	}
	const together = 10 * time.Second // until the first members are taken in
	for at := time.Duration(0); at < together; at += seeEvery {
		s.see(at)
	}
	for p := range s.cfg.Pieces {
		for _, n := range s.current.Holders(p) {
			s.members[s.number[n]].held.Set(p, true)
			s.copies[p]++
		}
	}
	s.queue.push(event{at: together, kind: tick})
	for n := range s.cfg.Liars {
		s.members = append(s.members, &member{
			liar: true, node: placement.Node{ID: named("node-liar-%06d", n), Weight: s.image.Size},
			held: schedule.NewSet(s.cfg.Pieces), fetching: schedule.NewSet(s.cfg.Pieces),
		})
	}
	s.queue.push(event{at: s.cfg.Length / 4, kind: liars, a: 1})
	s.queue.push(event{at: s.cfg.Length / 2, kind: liars, a: 0})
	if s.cfg.Strike > 0 {
		s.queue.push(event{at: s.cfg.Length / 2, kind: strike})
	}
}

// named makes a machine's ID up.
func named(format string, n int) (id identity.ID) {
	copy(id[:], fmt.Sprintf(format, n))
	return id
}

// mortal plans a machine's death.
func (s *survival) mortal(n int32) {
	at := time.Duration(s.rng.ExpFloat64() * float64(s.cfg.Lifetime))
	s.queue.push(event{at: s.now + at, kind: death, node: n, a: s.members[n].life})
}

func (s *survival) handle(e event) {
	m := s.members[e.node]
	switch e.kind {
	case tick:
		s.see(s.now)
		s.decide()
		s.queue.push(event{at: s.now + seeEvery, kind: tick})
	case strike:
		for n := range s.members {
			if !s.members[n].liar && s.rng.Float64() < s.cfg.Strike {
				s.kill(int32(n))
			}
		}
	case death:
		if e.a == m.life {
			s.kill(e.node)
		}
	case liars:
		for _, m := range s.members {
			if m.liar {
				m.seen = e.a == 1
			}
		}
	case forgotten:
		if !m.alive {
			m.seen = false
		}
	case start:
		m.alive, m.seen = true, true
		m.held.Clear()
		m.fetching.Clear()
		s.dirty.Set(int(e.node), true)
		s.mortal(e.node)
	case pieceArrived:
		s.arrived(e)
	}
}

func (s *survival) kill(n int32) {
	m := s.members[n]
	if !m.alive {
		return
	}
	s.out.Deaths++
	m.alive = false
	m.life++
	for p := range s.cfg.Pieces {
		if m.held.Has(p) {
			s.dropped(p)
		}
	}
	s.queue.push(event{at: s.now + detect, kind: forgotten, node: n})
	s.queue.push(event{at: s.now + s.cfg.Reboot, kind: start, node: n})
}

// dropped counts a copy that is no more.
func (s *survival) dropped(p int) {
	if s.copies[p]--; s.copies[p] == 0 {
		s.lost.Set(p, true)
	}
}

func (s *survival) seen() []placement.Node {
	var nodes []placement.Node
	for _, m := range s.members {
		if m.seen {
			nodes = append(nodes, m.node)
		}
	}
	return nodes
}

// see shows the members to the planner. Who has to keep something else by a new
// assignment thinks again.
func (s *survival) see(now time.Duration) {
	a := s.planner.Update(now, s.seen())
	if a == s.current {
		return
	}
	s.out.Decided++
	before, number := s.current, s.number
	s.current, s.number = a, nil
	for _, node := range a.Nodes() {
		i, _ := slices.BinarySearchFunc(s.members, node.ID, func(m *member, id identity.ID) int { return m.node.ID.Compare(id) })
		s.number = append(s.number, i)
	}
	if before == nil {
		return
	}
	for p := range s.cfg.Pieces {
		now, was := a.Holders(p), before.Holders(p)
		for k, n := range now {
			now[k] = s.number[n]
		}
		for k, n := range was {
			was[k] = number[n]
		}
		for _, n := range now {
			if !slices.Contains(was, n) {
				s.dirty.Set(n, true)
			}
		}
		for _, n := range was {
			if !slices.Contains(now, n) {
				s.dirty.Set(n, true)
			}
		}
	}
}

// decide lets every machine with a reason to think what to pin.
func (s *survival) decide() {
	for n, m := range s.members {
		if !m.alive || !s.dirty.Has(n) {
			continue
		}
		idle := true // nothing left to be done
		pins := placement.Pins(placement.Situation{
			Image: s.image, Assignment: s.current, Self: m.node.ID, Budget: m.node.Weight,
			Stable: s.now-s.planner.Since() >= settled,
			Pinned: m.held.Has, Held: m.held.Has,
			Claims: func(node, p int) bool {
				o := s.members[s.number[node]]
				return o.seen && (o.liar || o.held.Has(p))
			},
			Proved: func(node, p int) bool {
				o := s.members[s.number[node]]
				return o.seen && o.held.Has(p)
			},
			Origin: func(int) bool { return false },
		})
		self := s.current.Index(m.node.ID)
		for p, pin := range pins {
			switch {
			case m.held.Has(p) && !pin:
				m.held.Set(p, false)
				s.dropped(p)
			case m.held.Has(p):
				idle = idle && self >= 0 && s.current.Holds(self, p)
			case pin && !s.lost.Has(p):
				idle = false
				if !m.fetching.Has(p) {
					s.fetch(int32(n), p)
				}
			}
		}
		s.dirty.Set(n, !idle)
	}
}

// fetch has piece p sent to member n by one of those who are said to have it.
func (s *survival) fetch(n int32, p int) {
	m, source, ties := s.members[n], -1, 0
	for k, o := range s.members {
		if o.seen && int32(k) != n && o.held.Has(p) {
			if ties++; s.rng.IntN(ties) == 0 {
				source = k
			}
		}
	}
	if source < 0 {
		return // perhaps later
	}
	m.fetching.Set(p, true)
	o := s.members[source]
	if !o.alive {
		s.queue.push(event{at: s.now + retry, kind: pieceArrived, node: n, a: -1, b: int32(p), life: m.life})
		return
	}
	begin := max(s.now, o.link.sending, m.link.taking)
	o.link.sending = begin + span(s.cfg.PieceBytes, o.link.up)
	m.link.taking = begin + span(s.cfg.PieceBytes, m.link.down)
	at := max(o.link.sending, m.link.taking)
	s.queue.push(event{at: at, kind: pieceArrived, node: n, a: int32(source), b: int32(p), life: m.life, from: o.life})
}

func (s *survival) arrived(e event) {
	m, p := s.members[e.node], int(e.b)
	if m.life != e.life {
		return
	}
	m.fetching.Set(p, false)
	if e.a < 0 || s.members[e.a].life != e.from {
		return // the source died; it is fetched again at the next tick
	}
	if m.held.Set(p, true) {
		s.copies[p]++
		s.out.Fetched++
	}
}
