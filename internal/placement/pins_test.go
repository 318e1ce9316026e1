package placement

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// node is one machine of a model in which all see each other's pieces.
type node struct {
	Node
	held, pinned []bool
}

// model is a network of nodes that fetch at once what they pin, from whoever
// has it.
type model struct {
	im     Image
	nodes  []*node
	origin bool
}

func newModel(im Image, members []Node) *model {
	m := &model{im: im, origin: true}
	m.add(members...)
	return m
}

func (m *model) add(members ...Node) {
	for _, n := range members {
		m.nodes = append(m.nodes, &node{n, make([]bool, m.im.Pieces), make([]bool, m.im.Pieces)})
	}
}

func (m *model) members() (out []Node) {
	for _, n := range m.nodes {
		out = append(out, n.Node)
	}
	return out
}

func (m *model) have(p int) (count int) {
	for _, n := range m.nodes {
		if n.held[p] {
			count++
		}
	}
	return count
}

// step lets one node decide and act; it reports whether anything changed.
func (m *model) step(t *testing.T, n *node, a *Assignment) (fetched int, changed bool) {
	t.Helper()
	byNumber := make(map[int]*node)
	for _, o := range m.nodes {
		byNumber[a.Index(o.ID)] = o
	}
	pins := Pins(Situation{Image: m.im, Assignment: a, Self: n.ID, Budget: n.Weight, Stable: true,
		Pinned: func(p int) bool { return n.pinned[p] }, Held: func(p int) bool { return n.held[p] },
		Claims: func(o, p int) bool { return byNumber[o] != nil && byNumber[o].held[p] },
		Proved: func(o, p int) bool { return byNumber[o] != nil && byNumber[o].held[p] },
		Origin: func(int) bool { return m.origin },
	})
	used := int64(0)
	for p, pin := range pins {
		if n.pinned[p] && !pin && n.held[p] {
			n.held[p] = false // evicted at once, the worst case
			if m.have(p) == 0 && !m.origin {
				t.Fatalf("%s unpinned piece %d, and nobody else has it", n.ID, p)
			}
		}
		changed = changed || pin != n.pinned[p]
		n.pinned[p] = pin
		if pin && !n.held[p] && (m.origin || m.have(p) > 0) {
			n.held[p] = true
			fetched++
		}
		if pin {
			used += m.im.PieceLength
		}
	}
	if used > n.Weight {
		t.Fatalf("%s pins %d bytes, its budget is %d", n.ID, used, n.Weight)
	}
	return fetched, changed
}

// run lets the nodes act in turn until nothing changes any more.
func (m *model) run(t *testing.T, a *Assignment) (fetched int) {
	t.Helper()
	for range 200 {
		quiet := true
		for _, n := range m.nodes {
			f, changed := m.step(t, n, a)
			fetched += f
			quiet = quiet && !changed
		}
		if quiet {
			return fetched
		}
	}
	t.Fatal("the nodes go on pinning and unpinning for ever")
	return 0
}

// Nodes come, the origin goes, more nodes come and some go: nothing is lost
// as long as one holder of a piece is left, nobody exceeds its budget, and
// all comes to rest where the assignment says.
func TestPinsMoveWithoutLoss(t *testing.T) {
	for _, c := range []struct {
		budget int64
		copies int
	}{{300, 4}, {110, 4}, {60, 4}, {35, 4}} {
		t.Run(fmt.Sprint(c.budget), func(t *testing.T) {
			im := imageOf(200)
			m := newModel(im, network(8, c.budget*mib, c.budget*mib, 3))
			assign := func() *Assignment { return Assign(im, m.members(), c.copies) }
			m.run(t, assign())
			if assign().Short() {
				t.Fatal("the test wants room for every piece")
			}
			m.origin = false
			m.add(network(5, c.budget*mib/2, c.budget*mib, 4)...)
			a := assign()
			m.run(t, a)
			for i, n := range m.nodes {
				for p := range im.Pieces {
					if !n.held[p] && a.Holds(a.Index(n.ID), p) {
						t.Fatalf("node %d does not hold piece %d in the end", i, p)
					}
				}
			}
			// As many as leave every piece a copy.
			rng := rand.New(rand.NewPCG(1, 1))
			for range min(a.Fewest()-1, 3) {
				i := rng.IntN(len(m.nodes))
				m.nodes = append(m.nodes[:i], m.nodes[i+1:]...)
			}
			m.run(t, assign())
			for p := range im.Pieces {
				if m.have(p) == 0 {
					t.Fatalf("piece %d is lost", p)
				}
			}
		})
	}
}

// Two full nodes have to change all their pieces: the room that is not pinned
// suffices for it.
func TestFullNodesChangePieces(t *testing.T) {
	im := imageOf(100)
	nodes := network(2, 70*mib, 70*mib, 5)
	a := Assign(im, nodes, 4)
	m := newModel(im, nodes)
	m.origin = false
	for p := range im.Pieces {
		for i, n := range m.nodes {
			mine, theirs := a.Holds(a.Index(nodes[i].ID), p), a.Holds(a.Index(nodes[1-i].ID), p)
			n.held[p] = theirs && !mine || theirs && mine && i == 0
			n.pinned[p] = n.held[p]
		}
		if m.have(p) != 1 {
			t.Fatalf("piece %d has %d copies, the test wants 1", p, m.have(p))
		}
	}
	if fetched := m.run(t, a); fetched < 90 {
		t.Errorf("%d pieces moved", fetched)
	}
	for p := range im.Pieces {
		for _, n := range m.nodes {
			if n.held[p] != a.Holds(a.Index(n.ID), p) {
				t.Fatalf("%s holds piece %d: %v", n.ID, p, n.held[p])
			}
		}
	}
}

// With the origin gone a node keeps what only it happens to have; of several
// that have it one does.
func TestPinsKeepTheLastCopy(t *testing.T) {
	im := imageOf(100)
	nodes := network(3, 20*mib, 20*mib, 6)
	a := Assign(im, nodes, 4)
	orphan := -1
	for p := range im.Pieces {
		if len(a.Holders(p)) == 0 {
			orphan = p
			break
		}
	}
	if orphan < 0 {
		t.Fatal("the test wants a piece that is assigned to nobody")
	}
	for _, origin := range []bool{true, false} {
		keeping := 0
		for self := range nodes {
			pins := Pins(Situation{Image: im, Assignment: a, Self: nodes[self].ID, Budget: 20 * mib, Stable: true,
				Pinned: func(int) bool { return false }, Held: func(p int) bool { return p == orphan && self != 2 },
				Claims: func(n, p int) bool { return p == orphan && a.Nodes()[n].ID != nodes[2].ID },
				Proved: func(n, p int) bool { return p == orphan && a.Nodes()[n].ID != nodes[2].ID },
				Origin: func(int) bool { return origin }})
			if pins[orphan] {
				keeping++
			}
		}
		if want := map[bool]int{true: 0, false: 1}[origin]; keeping != want {
			t.Errorf("origin here: %v: %d nodes keep the piece, want %d", origin, keeping, want)
		}
	}
}

// Nothing is unpinned by an assignment that has just changed, or whose holders
// did not prove yet that they have the piece; what they claim is doubted then.
func TestPinsWaitForReplacement(t *testing.T) {
	im := imageOf(100)
	nodes := network(6, 80*mib, 80*mib, 7)
	a := Assign(im, nodes, 2)
	self, piece := 0, -1
	for p := range im.Pieces {
		if !a.Holds(self, p) {
			piece = p
			break
		}
	}
	holders := a.Holders(piece)
	for _, c := range []struct {
		stable, first, second, pinned bool // first and second have proved it
		claim                         bool // those who have not say so all the same
		doubts                        int
	}{
		{true, true, true, false, false, 0}, {false, true, true, true, false, 0}, {true, true, false, true, false, 0}, {true, false, false, true, false, 0},
		{true, false, false, true, true, 2}, {true, true, false, true, true, 1}, {false, false, false, true, true, 1}, {true, true, true, false, true, 0},
	} {
		proved := func(n, p int) bool {
			return p == piece && (n == holders[0] && c.first || n == holders[1] && c.second)
		}
		s := Situation{Image: im, Assignment: a, Self: a.Nodes()[self].ID, Budget: 80 * mib, Stable: c.stable,
			Pinned: func(p int) bool { return p == piece }, Held: func(p int) bool { return p == piece },
			Claims: func(n, p int) bool { return c.claim || proved(n, p) }, Proved: proved,
			Origin: func(int) bool { return true }}
		pins := Pins(s)
		if pins[piece] != c.pinned {
			t.Errorf("%+v: pinned %v", c, pins[piece])
		}
		if doubts := Doubts(s, pins); len(doubts) != c.doubts {
			t.Errorf("%+v: doubts %v", c, doubts)
		}
	}
}

func TestEvictionScore(t *testing.T) {
	if EvictionScore(100, 0) <= EvictionScore(90, 0) || EvictionScore(100, 0) >= EvictionScore(90, 1) {
		t.Error("older first, then what others have")
	}
	if EvictionScore(100, 0) <= EvictionScore(20, 50) {
		t.Error("what was used just now stays, whoever has it")
	}
}
