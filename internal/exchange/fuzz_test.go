package exchange

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"

	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// FuzzExchange has anything happen, in any order: nothing panics, a piece is held
// only when it was verified or the store has it, what is asked of a peer is what the
// table says is asked of it, and the same again gives the same commands.
func FuzzExchange(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 7, 1, 8, 0, 9, 0, 9, 0, 9, 0, 9, 0, 10, 0, 12, 5})
	f.Add([]byte{0, 1, 0, 2, 1, 1, 1, 2, 8, 1, 2, 1, 3, 2, 4, 1, 5, 1, 12, 200, 6, 1, 11, 1})
	// Strangers without the fast extension that choke while they owe; proofs of copies.
	f.Add([]byte{0, 216, 0, 217, 7, 1, 8, 4, 3, 0, 1, 1, 3, 1, 12, 2, 9, 5, 9, 1, 10, 1})
	f.Add([]byte{0, 1, 0, 2, 11, 128, 11, 132, 1, 1, 1, 5, 12, 3, 12, 100, 15, 1, 15, 5, 14, 130, 11, 0, 12, 1})
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
	var closing []schedule.Key
	for now := time.Duration(0); len(script) >= 2; script = script[2:] {
		what, arg := script[0], script[1]
		now += time.Duration(what>>4) * 10 * time.Millisecond
		k, i := schedule.Key(arg%4), int(arg>>2)%4
		x.SetTime(now)
		switch what % 16 {
		case 0:
			name := ""
			if arg < 200 {
				name = string("abcdefgh"[arg%8])
			}
			k := join(t, x, fmt.Sprintf("10.0.0.%d:1", 1+arg%8), name)
			if p := x.byKey[k]; p != nil && arg&16 > 0 { // it has no fast extension, or proofs of copies
				p.Fast = false
			} else if p != nil {
				p.hello.M.Challenge, p.hello.M.Answer = wire.IDChallenge, wire.IDAnswer
			}
		case 1:
			x.Messages(k, []wire.Message{{Type: wire.Have, Block: wire.Block{Piece: i}}, {Type: wire.Unchoke}})
		case 2:
			x.Messages(k, []wire.Message{{Type: wire.Request, Block: wire.Block{Piece: i, Length: wire.BlockSize}}})
		case 3:
			x.Messages(k, []wire.Message{{Type: wire.Choke}})
			if p := x.byKey[k]; p != nil && p.Fast {
				x.Messages(k, []wire.Message{{Type: wire.HaveNone}})
			}
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
				all := owes(x, k)
				b := all[i%len(all)]
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
			verified[i] = verified[i] || arg >= 128
			x.SetHeld(i, arg >= 128)
		case 12:
			x.SetTime(now + time.Duration(arg)*time.Second)
			x.Tick()
		case 13:
			if p := x.byKey[k]; p != nil && len(p.asked) > 0 {
				x.Messages(k, []wire.Message{{Type: wire.Reject, Block: owes(x, k)[0]}})
			}
		case 14:
			x.AddPeer(netip.MustParseAddrPort("10.0.0.9:6881"), arg%2 == 0)
			if p := x.byKey[k]; p != nil && arg >= 128 {
				x.Hello(k, wire.Hello{Block: testPiece, Budget: int64(arg), Port: 6881})
			}
		case 15:
			x.Wake()
			x.Messages(k, []wire.Message{wire.Extension(wire.IDChallenge, wire.Challenge{Piece: i}.Payload())})
		}
		if len(closing) > 3 {
			x.Disconnected(closing[0], nil, true)
			closing = closing[1:]
		}
		commands := slices.Clone(x.Commands())
		for _, c := range commands {
			switch c := c.(type) {
			case Answer:
				x.Answered(c, [wire.DigestSize]byte{}, nil, x.Held().Has(c.Asked.Piece))
			case Check:
				x.Checked(c.Asked, arg%3 > 0, nil)
			case Close: // the connection takes a while to end
				closing = append(closing, c.To)
			case Send:
				if m := c.Message; m.Type == wire.Extended && m.ExtendedID == wire.IDChallenge {
					q, _ := wire.ParseChallenge(m.Payload, 4)
					x.Messages(c.To, []wire.Message{wire.Extension(wire.IDAnswer, wire.Answer{Piece: q.Piece}.Payload())})
				}
			}
		}
		all = append(append(all, commands...), x.Commands()...)
		asksAgree(t, x)
		for i := range 4 {
			if x.Held().Has(i) && !verified[i] {
				t.Fatalf("piece %d is held and was not verified", i)
			}
		}
	}
	return all
}

// asksAgree checks that what a peer owes is what the table says is asked of it.
func asksAgree(t *testing.T, x *Exchange) {
	t.Helper()
	for i := range 4 {
		asked := x.table.Asked(i)
		for _, p := range x.peers {
			owed := 0
			for _, o := range p.asked {
				if o.piece == i {
					owed++
				}
				if len(o.blocks) == 0 || !slices.IsSortedFunc(o.blocks, func(a, b wire.Block) int { return a.Begin - b.Begin }) {
					t.Fatalf("a peer owes %v", o)
				}
			}
			if asked := slices.Contains(asked, p.key); owed > 1 || asked != (owed == 1) {
				t.Fatalf("piece %d is owed %d times, the table says it is asked: %v", i, owed, asked)
			}
		}
	}
}
