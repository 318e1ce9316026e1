package schedule

import (
	"testing"
	"time"
)

// answer is what becomes of a request.
type answer uint8

const (
	gives answer = iota
	rejects
	keepsSilent
)

// A peer that does not give what it says it has is not planned with, whatever
// it gave long ago, and may come back by giving.
func TestStanding(t *testing.T) {
	always := func(a answer) func(n int) answer { return func(int) answer { return a } }
	oneIn := func(k int) func(n int) answer {
		return func(n int) answer {
			if n%k == 0 {
				return gives
			}
			return rejects
		}
	}
	for name, c := range map[string]struct {
		does        func(n int) answer
		trusted     bool // in the end
		most, least int  // requests to it in ten seconds
	}{
		"gives":                      {always(gives), true, 1 << 20, 900},
		"rejects":                    {always(rejects), false, 12, 5},
		"rejects now and then":       {func(n int) answer { return oneIn(10)(n+5) ^ 1 }, true, 1 << 20, 900},
		"gives one in three":         {oneIn(3), false, 150, 10},
		"gives one in ten":           {oneIn(10), false, 60, 5},
		"gives 500, then rejects":    {func(n int) answer { return answer(min(n/500, 1)) }, false, 530, 510},
		"rejects 8, then gives":      {func(n int) answer { return answer(max(0, 1-n/8)) }, true, 1 << 20, 100},
		"silent":                     {always(keepsSilent), false, 5, 1},
		"gives 500, then falls dumb": {func(n int) answer { return answer(2 * min(n/500, 1)) }, false, 530, 500},
	} {
		t.Run(name, func(t *testing.T) {
			tb := table(t, 3000, Node, Node) // the second gives
			asked, had := 0, tb.avail[2999]
			for now := 10 * ms; now < 10*time.Second; now += 10 * ms {
				if i := next(tb, 2, now); i >= 0 {
					tb.Done(2, i, now+5*ms)
					tb.SetHeld(i, true)
				}
				if now%(100*ms) == 0 {
					tb.Stalls(now)
					tb.Alive(1, now)
				}
				i := next(tb, 1, now)
				if i < 0 {
					continue
				}
				switch asked++; c.does(asked - 1) {
				case gives:
					tb.Done(1, i, now+5*ms)
					tb.SetHeld(i, true)
				case rejects:
					tb.Undone(1, i, now, 250*ms)
				}
			}
			if tb.Trusted(1) != c.trusted || asked > c.most || asked < c.least {
				t.Errorf("trusted %v, asked %d times; want %v, %d to %d", tb.Trusted(1), asked, c.trusted, c.least, c.most)
			}
			if counted := tb.avail[2999] == had; counted != c.trusted {
				t.Errorf("counts as a holder: %v", counted)
			}
		})
	}
}

// What a suspect owes is asked of others at once.
func TestSuspectHoldsNothingUp(t *testing.T) {
	tb := table(t, 1, Node, Node)
	if next(tb, 1, 0) != 0 || next(tb, 2, 0) >= 0 {
		t.Fatal("asked of one at a time")
	}
	tb.Suspect(1, 0)
	if next(tb, 2, ms) != 0 {
		t.Error("what a suspect owes is asked of nobody else")
	}
}

// One that claims to have everything does not keep the origin from being asked,
// however it delays.
func TestOriginIsAskedBesideSlackers(t *testing.T) {
	for name, piece := range map[string]time.Duration{"never gives": 0, "gives a piece a second": time.Second} {
		tb := table(t, 2000, Node, Node, Node, Origin)
		tb.SetOwned(func(i int) bool { return i%4 == 0 })
		fromOrigin := 0
		for now := ms; now < 4*time.Second; now += ms {
			if now%(100*ms) == 0 {
				tb.Stalls(now)
			}
			for k := Key(1); k <= 3; k++ {
				next(tb, k, now)
				for asks := tb.byKey[k].asks; piece > 0 && len(asks) > 0 && now-max(asks[0].since, tb.byKey[k].done) >= piece; asks = tb.byKey[k].asks {
					i := asks[0].piece
					tb.Done(k, i, now)
					tb.SetHeld(i, true)
				}
			}
			for next(tb, 4, now) >= 0 {
			}
			if asks := tb.byKey[4].asks; len(asks) > 0 && now-asks[0].since >= ms { // a piece each millisecond
				i := asks[0].piece
				tb.Done(4, i, now)
				tb.SetHeld(i, true)
				fromOrigin++
			}
		}
		if fromOrigin < 1900 {
			t.Errorf("%s: %d of 2000 pieces came from the origin", name, fromOrigin)
		}
	}
}

// New peers, who may all be silent, do not use up what may be asked at a time.
func TestNewPeersLeaveRoom(t *testing.T) {
	kinds := make([]Kind, 201)
	for k := range kinds {
		kinds[k] = Node
	}
	tb := table(t, 4000, kinds...)
	i := next(tb, 201, 0)
	tb.Done(201, i, 5*ms)
	tb.SetHeld(i, true)
	for k := Key(1); k <= 200; k++ {
		next(tb, k, 10*ms)
	}
	if next(tb, 201, 10*ms) < 0 {
		t.Error("who gives is not asked, because of all the others")
	}
}

// A late piece goes to a peer that has given something before, not to another
// that is new.
func TestHedgeGoesToWhoGives(t *testing.T) {
	tb := table(t, 100, Node, Node, Node, Origin)
	tb.ask(tb.byKey[4], 0, 0)
	tb.Done(4, 0, 10*ms)
	tb.SetHeld(0, true)
	j := next(tb, 1, 10*ms)
	for now := 10 * ms; ; now += 10 * ms {
		if now > time.Second {
			t.Fatal("never late")
		}
		if l := tb.Late(now); len(l) > 0 {
			if k, ok := tb.Source(j, now, false); !ok || k != 4 {
				t.Errorf("at %v piece %d is asked of %v, %v", now, j, k, ok)
			}
			return
		}
	}
}
