package exchange

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// FuzzExchange has anything happen, in any order: nothing panics, a piece is held
// only when it was verified, and the same again gives the same commands.
func FuzzExchange(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 7, 1, 8, 0, 9, 0, 9, 0, 9, 0, 9, 0, 10, 0, 12, 5})
	f.Add([]byte{0, 1, 0, 2, 1, 1, 1, 2, 8, 1, 2, 1, 3, 2, 4, 1, 5, 1, 12, 200, 6, 1, 11, 1})
	f.Fuzz(func(t *testing.T, script []byte) {
		first, second := play(t, script), play(t, script)
		if !reflect.DeepEqual(first, second) {
			t.Error("the same events gave other commands")
		}
	})
}

// play runs a script of events, two bytes each: what, and to whom or of what.
func play(t *testing.T, script []byte) (all []Command) {
	x := newExchange(t)
	verified := map[int]bool{}
	var verifying []int
	for now := time.Duration(0); len(script) >= 2; script = script[2:] {
		what, arg := script[0], script[1]
		now += time.Duration(what>>4) * 10 * time.Millisecond
		k, i := schedule.Key(arg%4), int(arg>>2)%4
		x.SetTime(now)
		switch what % 16 {
		case 0:
			join(t, x, fmt.Sprintf("10.0.0.%d:1", 1+arg%8), string("abcdefgh"[arg%8]))
		case 1:
			x.Messages(k, []wire.Message{{Type: wire.Have, Block: wire.Block{Piece: i}}, {Type: wire.Unchoke}})
		case 2:
			x.Messages(k, []wire.Message{{Type: wire.Request, Block: wire.Block{Piece: i, Length: wire.BlockSize}}})
		case 3:
			x.Messages(k, []wire.Message{{Type: wire.Choke}, {Type: wire.HaveNone}})
		case 4:
			x.Messages(k, []wire.Message{{Type: wire.Extended, ExtendedID: wire.IDUrgent, Payload: wire.PieceHint(i)}})
		case 5:
			if u, _, ok := x.NextUpload(k); ok && arg > 100 {
				x.NotOpened(k, u, arg > 200)
			} else if ok {
				x.Sent(k, u.Block)
			}
		case 6:
			x.Disconnected(k, errors.New("gone"), true)
		case 7:
			x.Want(0, 4, func(int) bool { return arg%2 == 1 })
		case 8:
			x.Demand(i, arg%2 == 0)
		case 9:
			if p := x.byKey[k]; p != nil && len(p.asked) > 0 {
				b := p.asked[i%len(p.asked)]
				for range 2 {
					if _, v := x.BlockArrived(k, b, new([]byte), nil); v != nil {
						verifying = append(verifying, v.Piece)
					}
				}
			}
		case 10:
			if len(verifying) > 0 {
				verified[verifying[0]] = arg%4 > 0
				x.Verified(Verdict{Piece: verifying[0], Right: arg%4 > 0, Held: true})
				verifying = verifying[1:]
			}
		case 11:
			x.SetHeld(i, false)
		case 12:
			x.SetTime(now + time.Duration(arg)*time.Second)
			x.Tick()
		case 13:
			if p := x.byKey[k]; p != nil && len(p.asked) > 0 {
				x.Messages(k, []wire.Message{{Type: wire.Reject, Block: p.asked[0]}})
			}
		case 14:
			x.AddPeer(netip.MustParseAddrPort("10.0.0.9:6881"), arg%2 == 0)
		case 15:
			x.Wake()
		}
		all = append(all, x.Commands()...)
		for i := range 4 {
			if x.Held().Has(i) && !verified[i] {
				t.Fatalf("piece %d is held and was not verified", i)
			}
		}
	}
	return all
}
