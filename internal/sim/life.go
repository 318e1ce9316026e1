package sim

import (
	"slices"
	"time"

	"viver.lan/internal/exchange"
)

// A node opens connections dialBatch at a time; that takes dialEach. One that
// finds no machine with room for it tries again after dialAgain.
const (
	dialBatch = 16
	dialEach  = 2 * time.Millisecond
	dialAgain = time.Second
)

// populate makes the machines and plans their lives.
func (s *Sim) populate() {
	s.addNode(0)
	s.alive = append(s.alive, 0)
	for i := range s.cfg.Nodes {
		at := time.Duration(s.rng.Int64N(int64(max(s.cfg.Skew, 5*time.Millisecond))))
		if s.cfg.Rooms > 1 {
			at = time.Duration(i*s.cfg.Rooms/s.cfg.Nodes)*s.cfg.Skew + time.Duration(s.rng.Int64N(int64(5*time.Millisecond)))
		}
		n := s.addNode(at)
		if s.rng.Float64() < s.cfg.Deaths {
			s.queue.push(event{at: at + time.Duration(s.rng.Int64N(int64(s.cfg.Bound()))), kind: death, node: n.id})
		}
	}
	for range s.cfg.Liars {
		s.alive = append(s.alive, s.newNode(true).id)
	}
	s.running = s.cfg.Nodes
	s.all = s.cfg.Nodes * s.cfg.Pieces
}

// addNode makes a machine that starts at the given time.
func (s *Sim) addNode(at time.Duration) *node {
	n := s.newNode(false)
	if !n.origin {
		s.queue.push(event{at: at, kind: start, node: n.id})
	}
	return n
}

// begin starts a node.
func (s *Sim) begin(n *node) {
	n.started = s.now
	s.alive = append(s.alive, n.id)
	s.act(n, func(x *exchange.Exchange) {
		x.AddPeer(s.nodes[0].addr, true)
		s.read(n)
	})
	s.queue.push(event{at: s.now + time.Duration(s.rng.Int64N(int64(exchange.TickEvery))), kind: tick, node: n.id})
	s.dial(n)
}

// dial connects n to some of the machines that are up and have room.
func (s *Sim) dial(n *node) {
	made, tries := 0, min(len(s.alive), 4*dialBatch)
	enough := s.cfg.Enough
	if len(s.alive)-1 <= s.cfg.Mesh {
		enough = s.cfg.Peers
	}
	few := len(s.alive) < 2*s.cfg.Peers // then all of them are tried
	if few {
		tries = len(s.alive)
	}
	at := s.rng.IntN(len(s.alive))
	for ; tries > 0 && made < dialBatch && n.open < enough; tries-- {
		if at++; !few {
			at = s.rng.IntN(len(s.alive))
		}
		if s.connect(n, s.nodes[s.alive[at%len(s.alive)]]) {
			made++
		}
	}
	switch {
	case n.open >= enough:
	case made > 0:
		s.queue.push(event{at: s.now + dialEach, kind: dial, node: n.id})
	default:
		s.queue.push(event{at: s.now + dialAgain, kind: dial, node: n.id})
	}
}

// connect makes a connection between n and m if both have room for it.
func (s *Sim) connect(n, m *node) bool {
	if n == m || m.dead || n.open >= s.cfg.Peers || m.open >= s.cfg.Peers {
		return false
	}
	for k := range n.conns {
		if n.conns[k].open && n.conns[k].peer == m.id {
			return false
		}
	}
	a, b := int32(len(n.conns)), int32(len(m.conns))
	there := m.endpoint()
	there.Dialled = m.addr
	n.x.SetTime(s.now)
	if n.x.Connected(key(a), there) != nil {
		return false
	}
	n.conns = append(n.conns, conn{peer: m.id, back: b, open: true})
	n.open++
	m.x.SetTime(s.now)
	if m.x.Connected(key(b), n.endpoint()) != nil {
		s.lose(n, a)
		return false
	}
	m.conns = append(m.conns, conn{peer: n.id, back: a, open: true})
	m.open++
	s.obey(n)
	s.obey(m)
	return true
}

// lose ends n's side of a connection.
func (s *Sim) lose(n *node, slot int32) {
	c := &n.conns[slot]
	if !c.open {
		return
	}
	c.open, c.left, c.news = false, 0, nil
	n.open--
	s.act(n, func(x *exchange.Exchange) {
		x.Disconnected(key(slot), errBusy, false)
		x.DialEnded(s.nodes[c.peer].addr, nil)
	})
}

// cut ends both sides.
func (s *Sim) cut(n *node, slot int32) {
	c := n.conns[slot]
	s.lose(n, slot)
	if r := s.nodes[c.peer]; !r.dead && int(c.back) < len(r.conns) && r.conns[c.back].peer == n.id {
		s.lose(r, c.back)
	}
}

// die takes a machine's power. Its peers notice after a while.
func (s *Sim) die(n *node) {
	n.dead = true
	s.alive = slices.DeleteFunc(s.alive, func(id int32) bool { return id == n.id })
	for i := range s.cfg.Pieces {
		if n.x.Held().Has(i) {
			s.uncount(i)
		}
	}
	for _, c := range n.conns {
		if c.open {
			s.queue.push(event{at: s.now + detect, kind: forgotten, node: c.peer, a: c.back})
		}
	}
	switch {
	case s.cfg.Reborn:
		s.addNode(s.now + reboot)
		if n.finished > 0 {
			s.running++
			s.all += s.cfg.Pieces
		}
	case n.finished == 0:
		s.running--
		s.all -= s.cfg.Pieces
	}
}

// forget drops the connection to a dead machine.
func (s *Sim) forget(n *node, slot int32) {
	s.lose(n, slot)
	if !n.origin {
		s.dial(n)
	}
}

// count notes that one more node holds a piece.
func (s *Sim) count(piece int32) {
	s.replicas[piece]++
	s.moved++
	if r := s.replicas[piece]; r <= manyReplicas {
		s.atLeast[r]++
		if s.atLeast[r] == s.cfg.Pieces && s.reached[r] == 0 {
			s.reached[r] = s.now
		}
	}
	if s.cfg.Progress != nil && s.moved-s.report >= s.all/100 {
		s.report = s.moved
		s.stopped = !s.cfg.Progress(Progress{s.now, s.moved, s.all})
	}
}

func (s *Sim) uncount(piece int) {
	if r := s.replicas[piece]; r <= manyReplicas {
		s.atLeast[r]--
	}
	s.replicas[piece]--
}
