package schedule

import (
	"slices"
	"testing"
	"time"
)

// A reader goes through an image piece by piece while machines die under it,
// in virtual time. The dead say nothing at all, as a machine does whose plug
// was pulled: no error tells that they are gone.

// source is a machine that sends one piece after the other.
type source struct {
	piece time.Duration // what sending one takes
	dies  time.Duration // 0 means never
	drips time.Duration // from then on it sends a byte at a time; 0 means never
	queue []int
	begun time.Duration
}

// read simulates a reader of all pieces from the sources and returns how long
// the whole took and how long the slowest single read was.
func read(t *testing.T, pieces int, wantAll bool, kinds []Kind, sources []*source) (total, slowest time.Duration) {
	t.Helper()
	tb := table(t, pieces, kinds...)
	for i := range pieces {
		tb.Want(i, wantAll)
	}
	held, demand, since := 0, 0, time.Duration(0)
	ask := func(k Key, i int, now time.Duration) {
		s := sources[k-1]
		if len(s.queue) == 0 {
			s.begun = now
		}
		s.queue = append(s.queue, i)
	}
	const step = 5 * ms
	for now := time.Duration(0); now < 10*time.Minute; now += step {
		for n, s := range sources {
			k := Key(n + 1)
			if s.drips > 0 && now >= s.drips {
				if len(s.queue) > 0 {
					tb.Progress(k, now)
				}
				continue
			}
			for len(s.queue) > 0 && s.begun+s.piece <= now && (s.dies == 0 || s.begun+s.piece < s.dies) {
				i := s.queue[0]
				s.queue, s.begun = s.queue[1:], s.begun+s.piece
				tb.Done(k, i, now)
				asked := tb.Asked(i)
				for _, q := range asked { // who else was asked is told
					tb.Withdrawn(q, i, now)
					late := sources[q-1]
					if first := slices.Index(late.queue, i); first >= 0 {
						late.queue = slices.Delete(late.queue, first, first+1)
						late.begun = max(late.begun, now)
					}
				}
				if !tb.Held().Has(i) {
					tb.SetHeld(i, true)
					held++
				}
			}
		}
		for tb.Held().Has(demand) { // the reader takes what is there
			slowest = max(slowest, now-since)
			tb.Demand(demand, false)
			if demand++; demand == pieces {
				return now, slowest
			}
			since = now
			tb.SetPlayhead(demand)
			tb.Demand(demand, true)
		}
		tb.Demand(demand, true)
		if len(tb.Asked(demand)) == 0 {
			if k, ok := tb.Source(demand, now, true); ok {
				ask(k, demand, now)
			}
		}
		if now%(100*ms) == 0 { // as the swarm's tick does
			tb.Stalls(now)
			for _, i := range tb.Late(now) {
				if k, ok := tb.Source(i, now, i == demand); ok {
					ask(k, i, now)
				}
			}
		}
		for n := range sources {
			for {
				i, ok := tb.Next(Key(n+1), now)
				if !ok {
					break
				}
				ask(Key(n+1), i, now)
			}
		}
	}
	t.Fatalf("the reader waits for ever for piece %d; %d are held", demand, held)
	return 0, 0
}

// A peer that dies costs a reader less than two seconds, by hedging: with
// fetching ahead or without, on quick links and slow ones, known peer or new.
func TestDeadPeerCostsLessThanTwoSeconds(t *testing.T) {
	const limit = 2 * time.Second
	for _, c := range []struct {
		name   string
		pieces int
		piece  time.Duration
		dies   []time.Duration // per source
		ahead  bool
	}{
		{"one of two, quick", 600, 5 * ms, []time.Duration{0, 700 * ms}, false},
		{"one of two, quick, reading ahead", 600, 5 * ms, []time.Duration{0, 700 * ms}, true},
		{"one of four", 600, 10 * ms, []time.Duration{0, 0, 700 * ms, 0}, true},
		{"one of four, demand reads only", 600, 10 * ms, []time.Duration{0, 0, 700 * ms, 0}, false},
		{"on slow links", 80, 250 * ms, []time.Duration{0, 2 * time.Second, 0}, true},
		{"on slow links, demand reads only", 80, 250 * ms, []time.Duration{0, 2 * time.Second, 0}, false},
		{"dead before it sent anything", 600, 10 * ms, []time.Duration{0, 1, 0}, true},
		{"dead before it sent anything, demand reads only", 600, 10 * ms, []time.Duration{0, 1, 0}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			kinds := make([]Kind, len(c.dies))
			var all, without []*source
			for n, d := range c.dies {
				kinds[n] = Node
				all = append(all, &source{piece: c.piece, dies: d})
				// What the network could do if the dead had never been there.
				if d == 0 {
					without = append(without, &source{piece: c.piece})
				}
			}
			total, slowest := read(t, c.pieces, c.ahead, kinds, all)
			base, usual := read(t, c.pieces, c.ahead, kinds[:len(without)], without)
			t.Logf("%v, slowest read %v; without the dead %v and %v", total, slowest, base, usual)
			if total-base > limit || slowest-usual > limit {
				t.Errorf("a dead peer cost the reader %v, its slowest read %v", total-base, slowest-usual)
			}
		})
	}
}

// A quarter of the nodes dies at once. Who is hedged with may be dead as well:
// then a third is asked, in the same time again.
func TestQuarterDies(t *testing.T) {
	for _, dies := range []time.Duration{1, 700 * ms} {
		for _, ahead := range []bool{false, true} {
			kinds := make([]Kind, 8)
			var all []*source
			for n := range kinds {
				kinds[n] = Node
				all = append(all, &source{piece: 10 * ms})
			}
			all[2].dies, all[5].dies = dies, dies
			total, slowest := read(t, 1000, ahead, kinds, all)
			t.Logf("reading ahead %v, dead from %v on: %v, slowest read %v", ahead, dies, total, slowest)
			if slowest > 2*2*time.Second {
				t.Errorf("a read took %v", slowest)
			}
		}
	}
	// Nothing but the dead around one that lives.
	kinds := []Kind{Node, Node, Node, Node}
	sources := []*source{{piece: 10 * ms, dies: 1}, {piece: 10 * ms, dies: 1}, {piece: 10 * ms, dies: 1}, {piece: 10 * ms}}
	if _, slowest := read(t, 50, false, kinds, sources); slowest > 3500*ms {
		t.Errorf("three dead peers: a read took %v", slowest)
	}
}

// A peer that sends a byte now and then, never a piece, is worse than a dead
// one: it is not silent.
func TestDrippingPeer(t *testing.T) {
	for _, ahead := range []bool{false, true} {
		all := []*source{{piece: 10 * ms}, {piece: 10 * ms, drips: 700 * ms}, {piece: 10 * ms}}
		kinds := []Kind{Node, Node, Node}
		total, slowest := read(t, 600, ahead, kinds, all)
		base, _ := read(t, 600, ahead, kinds[:2], []*source{{piece: 10 * ms}, {piece: 10 * ms}})
		t.Logf("reading ahead %v: %v, slowest read %v; without it %v", ahead, total, slowest, base)
		if slowest > 2*time.Second || total-base > 10*time.Second {
			t.Errorf("it cost the reader %v, its slowest read %v", total-base, slowest)
		}
	}
}

// The origin is as dead as any other: its pieces come from who has them.
func TestDeadOriginIsHedged(t *testing.T) {
	sources := []*source{{piece: 10 * ms, dies: 500 * ms}, {piece: 10 * ms}}
	if _, slowest := read(t, 500, false, []Kind{Origin, Node}, sources); slowest > 2*time.Second {
		t.Errorf("a read took %v", slowest)
	}
}

// A peer that was beaten again and again is not asked while it rests, by
// neither way of asking.
func TestWhoRestsIsNotAsked(t *testing.T) {
	tb := table(t, 50, Node, Node)
	now := time.Duration(0)
	for range 4 {
		i := next(tb, 1, now)
		if i < 0 {
			break
		}
		now += time.Second
		tb.Progress(1, now)
		tb.Withdrawn(1, i, now)
		tb.SetHeld(i, true)
	}
	if i := next(tb, 1, now); i >= 0 {
		t.Errorf("asked for %d", i)
	}
	if i := next(tb, 2, now); i < 0 {
		t.Error("the other one is not asked")
	}
	if i := next(tb, 1, now+time.Minute); i < 0 {
		t.Error("it is never asked again")
	}
}
