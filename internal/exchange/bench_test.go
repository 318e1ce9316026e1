package exchange

import (
	"net/netip"
	"testing"

	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/placement"
	"viver.lan/internal/swarm/wire"
)

// BenchmarkLargePieces is a stranger's part in pieces of 16 MiB: each is a thousand
// requests.
func BenchmarkLargePieces(b *testing.B) {
	const size, pieces = 16 << 20, 64
	for b.Loop() {
		x := New(Config{Image: placement.Image{Pieces: pieces, PieceLength: size, Size: size * pieces}, Key: identitytest.Key(b, "n").Public(),
			Listen: netip.MustParseAddrPort("10.9.9.9:6881"), Budget: size * pieces})
		x.Want(0, pieces, every)
		k := join(b, x, "10.0.0.1:1", "")
		for left := pieces * (size / wire.BlockSize); left > 0; left-- {
			_, v := x.BlockArrived(k, x.byKey[k].asked[0].blocks[0], nil, nil)
			if v != nil {
				x.Verified(Verdict{Piece: v.Piece, Right: true, Held: true})
			}
			x.Commands()
		}
	}
}
