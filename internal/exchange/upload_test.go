package exchange

import (
	"fmt"
	"testing"
	"time"

	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// Where many wait for their turn, a block that was sent has one of them look, not all;
// and nobody is forgotten, nor served more than others of its address.
func TestABlockThatIsSentWakesOne(t *testing.T) {
	x := newExchange(t)
	x.cfg.Image.Size = 1 << 40 // nobody takes too much
	for i := range 4 {
		x.SetHeld(i, true)
	}
	const hosts, blocks = 9, 12
	sent := map[schedule.Key]int{}
	for n := range hosts * MaxPerHost {
		k := join(t, x, fmt.Sprintf("10.0.0.%d:%d", 1+n%hosts, 1+n), "")
		x.Messages(k, []wire.Message{{Type: wire.HaveNone}})
		for m := range blocks {
			x.Messages(k, []wire.Message{{Type: wire.Request, Block: wire.Block{Piece: m % 4, Begin: m / 4 * wire.BlockSize, Length: wire.BlockSize}}})
		}
		sent[k] = 0
	}
	type sending struct {
		k schedule.Key
		u Upload
	}
	var wire []sending // what is on its way
	looks := 0
	obey := func() {
		for _, c := range x.Commands() {
			if o, ok := c.(Offer); ok {
				looks++
				if u, _, ok := x.NextUpload(o.To); ok {
					wire = append(wire, sending{o.To, u})
				}
			}
		}
	}
	x.SetTime(time.Second)
	obey()
	begun := looks
	for total := 0; len(wire) > 0; obey() {
		next := wire[0]
		wire = wire[1:]
		x.SetTime(x.now + time.Microsecond)
		x.Sent(next.k, next.u.Block)
		total++
		looks++ // a connection asks for its next block by itself
		if u, _, ok := x.NextUpload(next.k); ok {
			wire = append(wire, sending{next.k, u})
		}
		if sent[next.k]++; looks-begun > 2*total {
			t.Fatalf("%d looks for %d blocks", looks-begun, total)
		}
		least, most := blocks, 0
		for _, p := range x.peers {
			if p.Addr.Addr() == x.byKey[next.k].Addr.Addr() {
				least, most = min(least, sent[p.key]), max(most, sent[p.key])
			}
		}
		if most > least+2 {
			t.Fatalf("of one address one was sent %d, another %d", least, most)
		}
	}
	for k, n := range sent {
		if n != blocks {
			t.Fatalf("peer %d was sent %d blocks", k, n)
		}
	}
}
