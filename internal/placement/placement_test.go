package placement

import (
	"fmt"
	"math"
	"testing"

	"viver.lan/internal/identity/identitytest"
)

func nodes(weights ...int64) []Node {
	var out []Node
	for i, w := range weights {
		out = append(out, Node{ID: identitytest.Named(fmt.Sprintf("node-%02d", i)), Weight: w})
	}
	return out
}

func TestSharesFollowWeights(t *testing.T) {
	weights := []int64{1 << 30, 1 << 30, 2 << 30, 0, 4 << 30}
	r := NewRing(nodes(weights...))
	const pieces = 20000
	got := make([]int, len(weights))
	for p := range pieces {
		got[r.Owner(p)]++
	}
	for i, w := range weights {
		want := float64(pieces) * float64(w) / float64(8<<30)
		if math.Abs(float64(got[i])-want) > 0.05*pieces {
			t.Errorf("node %d owns %d pieces, want about %.0f", i, got[i], want)
		}
	}
	if got[3] != 0 {
		t.Error("a node without budget owns pieces")
	}
}

func TestLeavingMovesOnlyItsOwn(t *testing.T) {
	all := nodes(1, 1, 1, 1, 1)
	before := NewRing(all)
	after := NewRing(append(append([]Node{}, all[:2]...), all[3:]...))
	for p := range 5000 {
		was := all[before.Owner(p)].ID
		is := append(append([]Node{}, all[:2]...), all[3:]...)[after.Owner(p)].ID
		if was != all[2].ID && was != is {
			t.Fatalf("piece %d moved from %s to %s", p, was, is)
		}
	}
}

func TestOrderDoesNotMatter(t *testing.T) {
	a := nodes(3, 1, 2, 5)
	b := []Node{a[2], a[0], a[3], a[1]}
	ra, rb := NewRing(a), NewRing(b)
	for p := range 2000 {
		ha, hb := ra.Holders(p, 3), rb.Holders(p, 3)
		for i := range ha {
			if a[ha[i]].ID != b[hb[i]].ID {
				t.Fatalf("piece %d: holders %v and %v", p, ha, hb)
			}
		}
		if ra.Owner(p) != ha[0] {
			t.Fatalf("piece %d: owner %d is not the first holder %d", p, ra.Owner(p), ha[0])
		}
	}
}

func TestFewNodes(t *testing.T) {
	if o := NewRing(nil).Owner(1); o != -1 {
		t.Errorf("owner of nobody: %d", o)
	}
	if o := NewRing(nodes(0, 0)).Owner(1); o != -1 {
		t.Errorf("owner without budgets: %d", o)
	}
	if h := NewRing(nodes(1, 0, 1)).Holders(3, 4); len(h) != 2 {
		t.Errorf("holders %v", h)
	}
}
