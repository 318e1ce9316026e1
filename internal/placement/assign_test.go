package placement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"viver.lan/internal/identity/identitytest"
)

const mib = 1 << 20

func imageOf(pieces int) Image {
	return Image{Pieces: pieces, PieceLength: mib, Size: int64(pieces) * mib}
}

// network returns n nodes with budgets between lo and hi bytes.
func network(n int, lo, hi int64, seed uint64) []Node {
	rng := rand.New(rand.NewPCG(seed, 1))
	var out []Node
	for i := range n {
		out = append(out, Node{ID: identitytest.Named(fmt.Sprintf("node-%d-%03d", seed, i)), Weight: lo + rng.Int64N(hi-lo+1)})
	}
	return out
}

// check holds an assignment against the rules and returns the copies of each
// piece.
func check(t *testing.T, im Image, a *Assignment, copies int) []int {
	t.Helper()
	got := make([]int, im.Pieces)
	load := make([]int, len(a.Nodes()))
	for p := range im.Pieces {
		hs := a.Holders(p)
		got[p] = len(hs)
		for i, n := range hs {
			load[n]++
			if slices.Contains(hs[:i], n) {
				t.Fatalf("piece %d twice on node %d", p, n)
			}
			if !a.Holds(n, p) {
				t.Fatalf("holder %d of piece %d does not hold it", n, p)
			}
		}
		if len(hs) > 0 && !slices.Contains(hs, a.Owner(p)) || len(hs) == 0 && a.Owner(p) != -1 {
			t.Fatalf("piece %d: owner %d, holders %v", p, a.Owner(p), hs)
		}
	}
	slots, whole, small := 0, 0, 0
	for n, node := range a.Nodes() {
		capacity := im.Capacity(node.Weight)
		if load[n] > capacity || int64(load[n])*im.PieceLength > max(node.Weight, 0) {
			t.Errorf("node %d pins %d pieces, its budget of %d bytes allows %d", n, load[n], node.Weight, capacity)
		}
		switch {
		case im.Whole(node.Weight):
			if whole++; load[n] != im.Pieces {
				t.Errorf("node %d has room for everything and pins %d of %d", n, load[n], im.Pieces)
			}
		case capacity > 0:
			small++
			slots += capacity
		}
	}
	want := max(0, min(copies-whole, small))
	floor, sum := want, want*im.Pieces
	if slots < sum {
		floor, sum = slots/im.Pieces, slots
	}
	total := 0
	for p, n := range got {
		total += n
		if n < whole+floor || n > whole+floor+1 {
			t.Errorf("piece %d has %d copies, want %d or one more", p, n, whole+floor)
		}
	}
	if total < whole*im.Pieces+sum-im.Pieces/100 {
		t.Errorf("%d copies in all, there was room for %d", total, whole*im.Pieces+sum)
	}
	return got
}

func TestAssignKeepsTheRules(t *testing.T) {
	im := imageOf(600)
	for name, c := range map[string]struct {
		nodes  []Node
		copies int
		fewest int // -1: whatever the rules say
	}{
		"nobody":                    {nil, 4, 0},
		"no budgets":                {network(5, 0, 0, 1), 4, 0},
		"one with everything":       {network(1, im.Size, im.Size, 1), 4, 1},
		"ten with everything":       {network(10, im.Size, 2*im.Size, 1), 4, 10},
		"plenty":                    {network(20, 200*mib, 300*mib, 1), 4, 4},
		"uneven":                    {network(20, 1*mib, 500*mib, 2), 4, -1},
		"two and a half copies":     {network(10, 200*mib, 200*mib, 3), 4, 2},
		"exactly one copy":          {network(4, 200*mib, 200*mib, 4), 4, 1},
		"exactly two on three":      {network(3, 534*mib, 534*mib, 4), 4, 2},
		"less than one copy":        {network(3, 100*mib, 100*mib, 5), 4, 0},
		"two whole, the rest small": {append(network(2, im.Size, im.Size, 6), network(10, 300*mib, 300*mib, 7)...), 4, 4},
		"four whole, the rest idle": {append(network(4, im.Size, im.Size, 6), network(10, 300*mib, 300*mib, 7)...), 4, 4},
		"one large, many tiny":      {append(network(1, 599*mib, 599*mib, 8), network(12, 50*mib, 60*mib, 9)...), 4, -1},
		"a hundred tiny":            {network(120, 8*mib, 30*mib, 10), 5, -1},
	} {
		t.Run(name, func(t *testing.T) {
			a := Assign(im, c.nodes, c.copies)
			check(t, im, a, c.copies)
			if c.fewest >= 0 && a.Fewest() != c.fewest {
				t.Errorf("at least %d copies, want %d", a.Fewest(), c.fewest)
			}
			if a.Short() != (a.Fewest() == 0) {
				t.Error("short?")
			}
		})
	}
}

// Random networks of all kinds keep the rules, whatever the order in which the
// nodes are named.
func TestAssignProperties(t *testing.T) {
	rng := rand.New(rand.NewPCG(42, 0))
	for round := range 60 {
		im := imageOf(1 + rng.IntN(300))
		im.Size -= rng.Int64N(mib) // a short last piece
		nodes := network(rng.IntN(40), 0, 1+rng.Int64N(2*im.Size), uint64(round))
		copies := 1 + rng.IntN(5)
		a := Assign(im, nodes, copies)
		check(t, im, a, copies)
		rng.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		b := Assign(im, nodes, copies)
		for p := range im.Pieces {
			if !slices.Equal(a.Holders(p), b.Holders(p)) {
				t.Fatalf("round %d, piece %d: %v and %v in another order", round, p, a.Holders(p), b.Holders(p))
			}
		}
		if t.Failed() {
			t.Fatalf("round %d: %d pieces, %d nodes, %d copies", round, im.Pieces, len(nodes), copies)
		}
	}
}

// moves counts the copies that b needs and a does not have, leaving out what
// the named node gains or held: that has to move in any case.
func moves(im Image, a, b *Assignment) (all int) {
	for p := range im.Pieces {
		for _, n := range b.Holders(p) {
			old := a.Index(b.Nodes()[n].ID)
			if old < 0 || !a.Holds(old, p) {
				all++
			}
		}
	}
	return all
}

// A node that joins or leaves moves about its own share, whether there is
// room to spare or every node is full.
func TestChangesMoveLittle(t *testing.T) {
	im := imageOf(1000)
	for name, c := range map[string]struct {
		lo, hi int64
		limit  float64 // moved copies / share of a node
	}{
		"room to spare":   {400 * mib, 400 * mib, 1.2},
		"uneven budgets":  {100 * mib, 700 * mib, 2},
		"just enough":     {270 * mib, 270 * mib, 3},
		"half of enough":  {133 * mib, 133 * mib, 3},
		"below one copy":  {50 * mib, 50 * mib, 3},
		"uneven and full": {20 * mib, 240 * mib, 3},
	} {
		t.Run(name, func(t *testing.T) {
			nodes := network(20, c.lo, c.hi, 11)
			before := Assign(im, nodes, 4)
			held := 0
			for p := range im.Pieces {
				held += len(before.Holders(p))
			}
			share := float64(held) / float64(len(nodes))
			worst := 0.0
			for i := range nodes {
				less := slices.Delete(slices.Clone(nodes), i, i+1)
				after := Assign(im, less, 4)
				own := 0
				for p := range im.Pieces {
					if before.Holds(before.Index(nodes[i].ID), p) {
						own++
					}
				}
				unit := max(float64(own), share)
				leave, join := float64(moves(im, before, after))/unit, float64(moves(im, after, before))/unit
				worst = max(worst, leave, join)
				if leave > c.limit || join > c.limit {
					t.Errorf("node %d, which holds %d: leaving moves %.2f shares, joining %.2f, want at most %.1f", i, own, leave, join, c.limit)
				}
			}
			t.Logf("a node holds %.0f of %d pieces; worst change moves %.2f shares", share, im.Pieces, worst)
		})
	}
}

func TestCopies(t *testing.T) {
	if Copies(100) != 4 || Copies(101) != 5 {
		t.Error(Copies(100), Copies(101))
	}
}

// BenchmarkAssign places a 4.2 GB image on a thousand nodes: with room for
// five copies, with every node full, and with nodes that keep everything.
func BenchmarkAssign(b *testing.B) {
	im := imageOf(4320)
	for _, c := range []struct {
		name   string
		budget int64
	}{{"room", 100 * mib}, {"full", 12 * mib}, {"whole", im.Size}} {
		nodes := network(1000, c.budget/2, c.budget, 1)
		if c.budget == im.Size {
			nodes = network(1000, im.Size, im.Size, 1)
		}
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				Assign(im, nodes, 5)
			}
		})
	}
}
