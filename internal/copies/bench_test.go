package copies

import (
	"fmt"
	"testing"
	"time"

	"viver.lan/internal/identity"
)

// one is a world in which everybody claims the piece that is drawn.
type one struct{}

func (one) Common(_ identity.ID, draw func(n int) int) (int, bool) { return draw(1000), true }
func (one) Both(identity.ID, int) bool                             { return true }

// BenchmarkNext is one tick of a node with 200 neighbours, of which ten pass in a
// second.
func BenchmarkNext(b *testing.B) {
	l := NewLedger(pieceLength, [32]byte{1})
	for n := range 200 {
		l.Connected(id("x", n), fmt.Sprint("m", n), 0)
	}
	now := time.Duration(0)
	for b.Loop() {
		now += 100 * time.Millisecond
		for _, q := range l.Next(now, one{}) {
			if _, ok := l.Answered(q.ID, q.Piece); ok {
				l.Checked(q, true, now)
			}
		}
	}
}

// BenchmarkDigest is the work of one answer, and of checking one.
func BenchmarkDigest(b *testing.B) {
	piece := make([]byte, pieceLength)
	b.SetBytes(pieceLength)
	for b.Loop() {
		h := NewDigest(Nonce{}, id("abcdefghijklmnop"))
		h.Write(piece)
		h.Sum(nil)
	}
}
