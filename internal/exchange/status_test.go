package exchange

import (
	"reflect"
	"testing"

	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// seen is what others may know of an exchange.
type seen struct {
	peers      []PeerStatus
	stats      Stats
	neighbours []Neighbour
	outOfReach int
}

func see(x *Exchange) (s seen) {
	s.peers, s.stats = x.Status()
	s.neighbours = x.Neighbours()
	s.outOfReach, _ = x.OutOfReach()
	return s
}

// Whatever changes what is seen is announced, and what changes nothing is not.
func TestChangesAreAnnounced(t *testing.T) {
	x := newExchange(t)
	x.Want(0, 4, every)
	x.TakeStatusChanged()
	before := see(x)
	step := func(what string, want bool, f func()) {
		t.Helper()
		x.SetTime(x.now + TickEvery)
		f()
		x.Commands()
		now := see(x)
		if differs := !reflect.DeepEqual(now, before); differs != want {
			t.Errorf("%s: changed is %v, want %v", what, differs, want)
		}
		if announced := x.TakeStatusChanged(); announced != want {
			t.Errorf("%s: announced is %v, want %v", what, announced, want)
		}
		before = now
	}
	var k schedule.Key
	var v *Verify
	step("nothing happens", false, x.Tick)
	step("a peer comes", true, func() { k = join(t, x, "10.9.9.1:6881", "a") })
	x.Tick()
	x.TakeStatusChanged()
	before = see(x)
	step("it is still there", false, func() { x.Messages(k, []wire.Message{{KeepAlive: true}}) })
	step("a piece comes", true, func() { v = arrive(t, x, k, x.byKey[k].asked[0].piece) })
	step("it is right", true, func() { x.Verified(Verdict{Piece: v.Piece, Right: true, Held: true}) })
	step("it is lost", true, func() { x.SetHeld(v.Piece, false) })
	step("it was lost before", false, func() { x.SetHeld(v.Piece, false) })
	step("the peer loses one", true, func() {
		x.Messages(k, []wire.Message{{Type: wire.Extended, ExtendedID: wire.IDDontHave, Payload: wire.PieceHint(1)}})
	})
	step("it falls silent", true, func() { x.SetTime(x.now + 4*KeepAlive); x.Tick() })
	step("it goes", true, func() { x.Disconnected(k, nil, true) })
}
