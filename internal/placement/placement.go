// Package placement decides which nodes hold which pieces, from nothing but
// the members' names and budgets.
//
// It is pure arithmetic (weighted rendezvous hashing), so every node that
// knows the same members comes to the same answer without asking anybody. It
// neither knows who is alive nor moves bytes. The invariant: a node that
// joins or leaves changes only the pieces that it gains or held itself.
package placement

import (
	"cmp"
	"math"
	"slices"

	"viver.lan/internal/identity"
)

// Node is a member that holds pieces. The first node is never given here.
type Node struct {
	ID identity.ID
	// Weight is the node's share, usually its budget in bytes. A node of
	// weight 0 owns nothing.
	Weight int64
}

// Ring ranks a set of nodes for any piece. It is immutable.
type Ring struct {
	seeds   []uint64
	weights []float64
}

// NewRing returns the ring of nodes.
func NewRing(nodes []Node) *Ring {
	r := &Ring{seeds: make([]uint64, len(nodes)), weights: make([]float64, len(nodes))}
	for i, n := range nodes {
		r.seeds[i] = hash(n.ID.String())
		r.weights[i] = float64(max(0, n.Weight))
	}
	return r
}

// Owner returns the index of the node that owns piece i, or -1 when no node
// has a weight.
func (r *Ring) Owner(piece int) int {
	owner, best := -1, 0.0
	for n := range r.seeds {
		if s := r.score(n, piece); s > best || s == best && s > 0 && r.seeds[n] < r.seeds[owner] {
			owner, best = n, s
		}
	}
	return owner
}

// Holders returns the indices of the count best nodes for a piece, the owner
// first; fewer when there are fewer nodes with a weight.
func (r *Ring) Holders(piece, count int) []int {
	var nodes []int
	for n := range r.seeds {
		if r.weights[n] > 0 {
			nodes = append(nodes, n)
		}
	}
	slices.SortFunc(nodes, func(a, b int) int { return r.compare(a, b, piece) })
	return nodes[:min(count, len(nodes))]
}

// compare orders nodes by their rank for a piece, the best first.
func (r *Ring) compare(a, b, piece int) int {
	return cmp.Or(cmp.Compare(r.score(b, piece), r.score(a, piece)), cmp.Compare(r.seeds[a], r.seeds[b]))
}

// score is the weighted rendezvous score: with u uniform in (0,1), -w/ln(u)
// is largest for a node with probability w / sum of all w.
func (r *Ring) score(n, piece int) float64 {
	if r.weights[n] == 0 {
		return 0
	}
	x := mix(r.seeds[n] ^ mix(uint64(piece)+0x9e3779b97f4a7c15))
	u := (float64(x>>11) + 0.5) / (1 << 53)
	return -r.weights[n] / math.Log(u)
}

// hash is FNV-1a, finished so that similar names end far apart.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// mix is a bijection that spreads every input bit over all output bits (the
// finalizer of MurmurHash3).
func mix(x uint64) uint64 {
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}
