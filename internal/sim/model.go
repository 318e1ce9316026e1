// Package sim runs the decisions of a whole network on one machine: as many
// nodes as wanted, each with the exchange that runs on a real one, on
// links that exist as arithmetic only.
//
// It is a discrete-event simulation, not a network: no bytes, no packets, no
// sockets, no clock, no losses. It is to package exchange what package swarm is on a
// node, and link.go says what it takes a link for. The invariant: one seed, one result, whatever
// machine it runs on.
package sim

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"viver.lan/internal/exchange"
	"viver.lan/internal/schedule"
)

// Config describes a network and what happens in it. The zero value of a
// field means its default.
type Config struct {
	// Nodes read the image from one origin, which is not counted.
	Nodes int
	// Pieces of PieceBytes each make up the image.
	Pieces     int
	PieceBytes int64
	// Link and OriginLink are the payload bytes/s of a link, each way.
	Link, OriginLink float64
	// Latency is one way between any two machines.
	Latency time.Duration
	// Peers bounds how many machines one is connected to.
	Peers int
	// Enough is with how many of them a node stops dialling when it knows more
	// machines than Mesh; until then it dials all.
	Mesh, Enough int
	// Hash is how many bytes/s a node verifies and stores.
	Hash float64
	// Readers is how many pieces a node's reader waits for at once. It reads
	// from the start to the end.
	Readers int
	// Skew is the time over which the nodes start.
	Skew time.Duration
	// Rooms, when more than one, is how many groups of nodes start one after
	// the other, Skew apart, the nodes of a group together.
	Rooms int
	// Deaths is the part of the nodes that die while the image spreads, each
	// at a random time within what the links need at least.
	Deaths float64
	// Reborn says that each that dies is back, empty, two seconds later.
	Reborn bool
	// Liars are further machines, which say that they have everything and give
	// nothing: every other one rejects what it is asked for, the rest are silent.
	Liars  int
	Seed   uint64
	Params schedule.Params
	// Progress, when set, is told now and then how much is done; the run ends
	// when it returns false.
	Progress func(Progress) bool
}

// Progress of a run.
type Progress struct {
	Now        time.Duration // simulated
	Moved, All int           // pieces that nodes hold, and that they will
}

func (c Config) withDefaults() Config {
	c.Nodes = cmp.Or(c.Nodes, 100)
	c.Pieces = cmp.Or(c.Pieces, 512)
	c.PieceBytes = cmp.Or(c.PieceBytes, 128<<10)
	c.Link = cmp.Or(c.Link, 125e6)
	c.OriginLink = cmp.Or(c.OriginLink, c.Link)
	c.Latency = cmp.Or(c.Latency, 200*time.Microsecond)
	c.Peers = cmp.Or(c.Peers, 200)
	c.Mesh, c.Enough = cmp.Or(c.Mesh, 100), min(cmp.Or(c.Enough, 40), c.Peers)
	c.Hash = cmp.Or(c.Hash, 500e6)
	c.Readers = cmp.Or(c.Readers, 4)
	return c
}

// Bound is the shortest time in which any algorithm could give the image to
// all nodes: the origin has to send it once, each node to receive it, and all
// of them together to send it to each.
func (c Config) Bound() time.Duration {
	c = c.withDefaults()
	size := float64(c.PieceBytes) * float64(c.Pieces)
	n := float64(c.Nodes)
	return time.Duration(max(size/c.OriginLink, size/c.Link, n*size/(c.OriginLink+n*c.Link)) * float64(time.Second))
}

// Result of a run. Speeds are relative to Bound: 1 is the physical limit.
type Result struct {
	Bound time.Duration
	// Mean and Worst speed of the nodes that finished; Finished counts them.
	Mean, Worst float64
	Finished    int
	// OriginCopies is what the origin sent, in images.
	OriginCopies float64
	// Wasted is what nodes received although they had it, in images per node.
	Wasted float64
	// Replicas is when each piece was on r nodes for the first time, at index
	// r; 0 when that never was.
	Replicas []time.Duration
	// Lost counts pieces that no machine but the origin held in the end.
	Lost   int
	Events uint64
	Took   time.Duration // simulated
}

type kind uint8

const (
	uplinkFree   kind = iota
	pieceArrived      // a: slot, b: piece
	pieceChecked      // b: piece
	mail
	alarm // what an exchange has put off is due
	tick
	start
	dial
	death
	forgotten // a: slot of the machine that died
	strike
	liars
)

const (
	// batch is how long a HAVE may wait to be taken together with others.
	batch = time.Millisecond
	// What announcements cost on the wire: packet headers, there and of the
	// acknowledgement, and each HAVE.
	headerBytes, haveBytes = 130, 9
	// detect is after what time the membership takes a silent node for dead.
	detect = 8 * time.Second
	reboot = 2 * time.Second
	// manyReplicas is how far replicas are counted.
	manyReplicas = 5
)

// Sim is one run.
type Sim struct {
	cfg     Config
	now     time.Duration
	queue   queue
	rng     *rand.Rand
	nodes   []*node // the origin first
	alive   []int32
	quanta  int
	quantum int64

	replicas []int32 // per piece, on living nodes
	atLeast  [manyReplicas + 1]int
	reached  [manyReplicas + 1]time.Duration

	moved, all int
	running    int // nodes that are not complete yet
	report     int
	stopped    bool
}

// New returns a network in which nothing has happened yet.
func New(cfg Config) (*Sim, error) {
	cfg = cfg.withDefaults()
	if cfg.Nodes < 1 || cfg.Pieces < 1 || cfg.Peers < 1 {
		return nil, fmt.Errorf("simulate %d nodes with %d peers each and %d pieces: each must be 1 or more", cfg.Nodes, cfg.Peers, cfg.Pieces)
	}
	s := &Sim{
		cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x53494d)),
		replicas: make([]int32, cfg.Pieces),
	}
	s.quanta = int(min(8, max(1, cfg.PieceBytes>>14)))
	s.quantum = (cfg.PieceBytes + int64(s.quanta) - 1) / int64(s.quanta)
	s.populate()
	return s, nil
}

// Run lets everything happen and returns what came of it.
func (s *Sim) Run() (Result, error) {
	limit := 50*s.cfg.Bound() + s.cfg.Skew + time.Minute
	for s.running > 0 {
		e, ok := s.queue.pop()
		if !ok || e.at > limit {
			return s.result(), fmt.Errorf("after %v of simulated time %d of %d nodes are not complete", s.now.Round(time.Millisecond), s.running, len(s.nodes)-1)
		}
		s.now = e.at
		s.handle(e)
		if s.stopped {
			return s.result(), errors.New("stopped")
		}
	}
	return s.result(), nil
}

func (s *Sim) handle(e event) {
	n := s.nodes[e.node]
	if n.dead {
		return
	}
	switch e.kind {
	case uplinkFree:
		if e.at == n.link.wakeAt {
			n.link.wakeAt = 0
			s.pump(n)
		}
	case pieceArrived:
		s.received(n, e.a, e.b)
	case pieceChecked:
		s.checked(n, e.b)
	case mail:
		if e.at == n.wakeAt {
			n.wakeAt = 0
			s.readMail(n)
		}
	case alarm:
		if e.at == n.alarm {
			n.alarm = 0
			s.act(n, (*exchange.Exchange).Wake)
		}
	case tick:
		s.tick(n)
	case start:
		s.begin(n)
	case dial:
		s.dial(n)
	case death:
		s.die(n)
	case forgotten:
		s.forget(n, e.a)
	}
}

func (s *Sim) result() Result {
	r := Result{Bound: s.cfg.Bound(), Events: s.queue.made, Took: s.now}
	var sum float64
	for _, n := range s.nodes[1:] {
		if n.finished == 0 {
			continue
		}
		speed := r.Bound.Seconds() / (n.finished - n.started).Seconds()
		if r.Finished == 0 || speed < r.Worst {
			r.Worst = speed
		}
		sum += speed
		r.Finished++
	}
	size := float64(s.cfg.Pieces) * float64(s.cfg.PieceBytes)
	if r.Finished > 0 {
		r.Mean = sum / float64(r.Finished)
	}
	r.OriginCopies = float64(s.nodes[0].link.sent) / size
	for _, n := range s.nodes {
		_, stats := n.x.Status()
		r.Wasted += float64(stats.Wasted) / size / float64(s.cfg.Nodes)
	}
	r.Replicas = append(r.Replicas, s.reached[:]...)
	for _, c := range s.replicas {
		if c == 0 {
			r.Lost++
		}
	}
	return r
}
