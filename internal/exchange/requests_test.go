package exchange

import (
	"math/rand/v2"
	"slices"
	"testing"

	"viver.lan/internal/swarm/wire"
)

// What is owed is what was added and not dropped since, whatever the order.
func TestRequests(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var r requests
	var want []wire.Block // in the order of r
	for range 5000 {
		i := rng.IntN(6)
		here := slices.ContainsFunc(want, func(b wire.Block) bool { return b.Piece == i })
		switch n := rng.IntN(20); {
		case n == 0 && !here:
			var blocks []wire.Block
			for begin := range 8 {
				blocks = append(blocks, wire.Block{Piece: i, Begin: begin * wire.BlockSize, Length: wire.BlockSize})
			}
			r.add(i, blocks)
			want = append(want, blocks...)
		case n == 1:
			if got := r.remove(i); len(got) > 0 != here {
				t.Fatalf("removed %v", got)
			}
			want = slices.DeleteFunc(want, func(b wire.Block) bool { return b.Piece == i })
		default:
			b := wire.Block{Piece: i, Begin: rng.IntN(8) * wire.BlockSize, Length: wire.BlockSize + rng.IntN(2)}
			at := slices.Index(want, b)
			if at >= 0 {
				want = slices.Delete(want, at, at+1)
			}
			left := slices.ContainsFunc(want, func(o wire.Block) bool { return o.Piece == i })
			if was, done := r.forget(b); was != (at >= 0) || done != (was && !left) {
				t.Fatalf("forgot %v: %v, %v", b, was, done)
			}
		}
		var got []wire.Block
		for _, o := range r {
			got = append(got, o.blocks...)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("owed are %v, want %v", got, want)
		}
	}
}
