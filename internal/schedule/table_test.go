package schedule

import (
	"slices"
	"testing"
	"time"
)

const ms = time.Millisecond

// table returns a table that wants everything, with peers that have it all.
func table(t *testing.T, pieces int, kinds ...Kind) *Table {
	t.Helper()
	tb := NewTable(pieces, 1, Params{})
	for i := range pieces {
		tb.Want(i, true)
	}
	for n, kind := range kinds {
		k := Key(n + 1)
		tb.AddPeer(k)
		tb.SetKind(k, kind)
		tb.SetChoked(k, false)
		for i := range pieces {
			tb.PeerHas(k, i, true)
		}
	}
	return tb
}

func next(tb *Table, k Key, now time.Duration) int {
	if i, ok := tb.Next(k, now); ok {
		return i
	}
	return -1
}

func TestOriginGivesWhatWeOwn(t *testing.T) {
	tb := table(t, 10, Origin)
	tb.SetOwned(func(i int) bool { return i%3 == 1 })
	tb.SetPlayhead(5)
	tb.params.MaxDepth, tb.params.MinDepth = 10, 10
	var got []int
	for range 10 {
		got = append(got, next(tb, 1, 0))
	}
	// What is owned, from the playhead on and round; nothing beside it while
	// the origin still owes us that.
	if want := []int{7, 1, 4, -1, -1, -1, -1, -1, -1, -1}; !slices.Equal(got, want) {
		t.Errorf("asked %v, want %v", got, want)
	}
	for _, i := range []int{7, 1, 4} {
		tb.Done(1, i, 10*ms)
		tb.SetHeld(i, true)
	}
	if i := next(tb, 1, 20*ms); i < 0 || i%3 == 1 {
		t.Errorf("with its own done a node helps out, one piece at a time: %d", i)
	}
	if i := next(tb, 1, 20*ms); i >= 0 {
		t.Errorf("and a second one: %d", i)
	}
}

func TestRarestFirstTiesAtRandom(t *testing.T) {
	seen := map[int]bool{}
	for seed := range uint64(40) {
		tb := NewTable(8, seed, Params{})
		for i := range 8 {
			tb.Want(i, true)
		}
		for k := range Key(3) {
			tb.AddPeer(k)
			tb.SetKind(k, Node)
			tb.SetChoked(k, false)
		}
		for i := range 8 { // all have 0-3, only peer 0 has 4-7
			tb.PeerHas(0, i, true)
			if i < 4 {
				tb.PeerHas(1, i, true)
				tb.PeerHas(2, i, true)
			}
		}
		seen[next(tb, 0, 0)] = true
	}
	for i := range 8 {
		if seen[i] != (i >= 4) {
			t.Errorf("piece %d chosen first: %v", i, seen[i])
		}
	}
}

func TestDemandGoesFirst(t *testing.T) {
	tb := table(t, 200, Node, Origin)
	tb.Demand(150, true)
	if k, ok := tb.Source(150, 0, true); !ok || k != 1 {
		t.Errorf("source %v, %v: a node spares the origin", k, ok)
	}
	tb.Demand(160, true)
	if i := next(tb, 1, 0); i != 160 {
		t.Errorf("next is %d, want the piece that is waited for", i)
	}
	tb.SetOwned(func(int) bool { return false })
	tb.Demand(170, true)
	if i := next(tb, 2, 0); i != 170 {
		t.Errorf("next of the origin is %d: demand reads may take the direct path", i)
	}
}

func TestNothingIsAskedTwiceInTime(t *testing.T) {
	tb := table(t, 4, Node, Node)
	tb.params.MinDepth = 4
	seen := map[int]bool{}
	for range 4 {
		for k := range Key(3) {
			if i := next(tb, k, 0); i >= 0 {
				if seen[i] {
					t.Fatalf("piece %d was asked of two peers", i)
				}
				seen[i] = true
			}
		}
	}
	if len(seen) != 4 || len(tb.Late(100*ms)) != 0 {
		t.Errorf("asked %v, late %v", seen, tb.Late(100*ms))
	}
}

func TestLatePiecesAreHedged(t *testing.T) {
	tb := table(t, 2, Node, Node)
	i := next(tb, 1, 0)
	for _, c := range []struct {
		at   time.Duration
		want bool
	}{{400 * ms, false}, {1900 * ms, false}, {2100 * ms, true}} { // nothing measured yet
		if got := slices.Contains(tb.Late(c.at), i); got != c.want {
			t.Errorf("late at %v: %v", c.at, got)
		}
	}
	if k, ok := tb.Source(i, 2100*ms, false); !ok || k != 2 {
		t.Errorf("source %v, %v", k, ok)
	}
	if l := tb.Late(3 * time.Second); len(l) != 0 {
		t.Errorf("a hedged piece is hedged again: %v", l)
	}
	// A measured peer that is silent is late after Hedge when somebody waits,
	// else after twice that.
	tb.Done(2, i, 2150*ms)
	tb.SetHeld(i, true)
	j := next(tb, 2, 3000*ms)
	for _, c := range []struct {
		demand bool
		at     time.Duration
		want   bool
	}{{false, 3950 * ms, false}, {false, 4050 * ms, true}, {true, 3450 * ms, false}, {true, 3550 * ms, true}} {
		tb.Demand(j, c.demand)
		if got := slices.Contains(tb.Late(c.at), j); got != c.want {
			t.Errorf("demanded %v: late at %v: %v", c.demand, c.at, got)
		}
	}
	// Bytes that flow buy time.
	tb.Progress(2, 3500*ms)
	if slices.Contains(tb.Late(3550*ms), j) {
		t.Error("late although its bytes flow")
	}
}

// Where 31 nodes share each other's uplinks, a piece takes 1.6 s and its peer
// is silent for most of them. To take that for trouble made every eleventh
// byte come twice.
func TestSharedUplinkIsNoTrouble(t *testing.T) {
	const usual = 1600 * ms
	for _, c := range []struct {
		demand bool
		at     time.Duration
		late   bool
		stall  bool
	}{
		{false, usual + 600*ms, false, false},
		{true, usual + 600*ms, false, false},
		{true, usual + 900*ms, true, false}, // it may be dead
		{false, 3800 * ms, false, false},
		{false, 4*usual + 100*ms, true, true},
	} {
		tb := table(t, 2, Node, Node)
		i := next(tb, 1, 0)
		tb.Done(1, i, usual)
		tb.SetHeld(i, true)
		j := next(tb, 1, usual)
		tb.Demand(j, c.demand)
		if got := slices.Contains(tb.Late(usual+c.at), j); got != c.late {
			t.Errorf("demanded %v, silent for %v: late %v", c.demand, c.at, got)
		}
		if tb.Stalls(usual + c.at); tb.Stalled(1) != c.stall {
			t.Errorf("silent for %v: stalled %v", c.at, !c.stall)
		}
	}
}

func TestStalledPeer(t *testing.T) {
	tb := table(t, 4, Node, Origin)
	tb.SetOwned(func(int) bool { return false })
	i := next(tb, 1, 0)
	if s := tb.Stalls(2 * time.Second); len(s) != 0 {
		t.Errorf("stalled too early: %v", s)
	}
	if s := tb.Stalls(4 * time.Second); len(s) != 1 || !tb.Stalled(1) {
		t.Fatalf("not stalled: %v", s)
	}
	if j := next(tb, 1, 4*time.Second); j >= 0 {
		t.Errorf("a stalled peer is asked for %d", j)
	}
	// It no longer counts as a holder: the origin helps out.
	if j := next(tb, 2, 4*time.Second); j < 0 {
		t.Error("nobody is asked")
	}
	tb.Undone(1, i, 5*time.Second, 0)
	tb.Alive(1, 5*time.Second)
	if next(tb, 1, 5*time.Second) < 0 || next(tb, 1, 5*time.Second) >= 0 {
		t.Error("a peer that was stalled gets one piece to prove itself")
	}
	tb.Progress(1, 6*time.Second)
	if next(tb, 1, 6*time.Second) >= 0 || tb.Trusted(1) {
		t.Error("a few bytes make up for a silence")
	}
	tb.Done(1, tb.byKey[1].asks[0].piece, 6*time.Second)
	if next(tb, 1, 6*time.Second) < 0 || !tb.Trusted(1) {
		t.Error("a peer that sends pieces again gets more")
	}
}

func TestPeerLoss(t *testing.T) {
	tb := table(t, 3, Node, Node)
	i := next(tb, 1, 0)
	tb.RemovePeer(1)
	if tb.inflight != 0 || tb.avail[i] != 1 {
		t.Errorf("in flight %d, available %d", tb.inflight, tb.avail[i])
	}
	seen := []int{next(tb, 2, 0), next(tb, 2, 0)}
	tb.params.MinDepth = 3
	if seen = append(seen, next(tb, 2, 0)); !slices.Contains(seen, i) {
		t.Errorf("piece %d is not asked again: %v", i, seen)
	}
}

func TestRefusalsArePausedFor(t *testing.T) {
	tb := table(t, 1, Node)
	i := next(tb, 1, 0)
	tb.Undone(1, i, 10*ms, 250*ms)
	if next(tb, 1, 100*ms) >= 0 {
		t.Error("asked again at once")
	}
	if next(tb, 1, 300*ms) < 0 {
		t.Error("never asked again")
	}
}

func TestUncovered(t *testing.T) {
	tb := table(t, 130, Node)
	tb.AddPeer(2)
	tb.PeerHas(1, 129, false)
	tb.PeerHas(1, 5, false)
	if n := tb.Uncovered([]Key{1, 2}); n != 2 {
		t.Errorf("uncovered %d, want 2", n)
	}
	tb.PeerHas(2, 129, true)
	tb.SetHeld(5, true)
	if n := tb.Uncovered([]Key{1, 2}); n != 0 {
		t.Errorf("uncovered %d, want 0", n)
	}
	if n := tb.Uncovered(nil); n != 129 {
		t.Errorf("uncovered by nobody: %d", n)
	}
}

func TestSuperSeedingRule(t *testing.T) {
	given := upload{given: true, usual: 10 * ms, ago: 100 * ms, others: 1}
	for name, c := range map[string]struct {
		change func(*upload)
		want   bool
	}{
		"the first time":            {func(u *upload) { *u = upload{} }, true},
		"a stranger":                {func(u *upload) { u.stranger = true }, true},
		"a moment later":            {func(*upload) {}, false},
		"urgent, a moment later":    {func(u *upload) { u.urgent = true }, false},
		"urgent, nothing else":      {func(u *upload) { u.urgent = true; u.others = 0 }, true},
		"urgent, just this":         {func(u *upload) { u.urgent = true; u.others = 0; u.pending = true }, false},
		"urgent, passed on by now":  {func(u *upload) { u.urgent = true; u.ago = 600 * ms }, true},
		"urgent, on its way":        {func(u *upload) { u.urgent = true; u.pending = true }, false},
		"urgent, lost on its way":   {func(u *upload) { u.urgent = true; u.pending = true; u.ago = time.Second }, true},
		"urgent, on a slow link":    {func(u *upload) { u.urgent = true; u.usual = time.Second; u.ago = time.Second }, false},
		"idle and settled":          {func(u *upload) { u.ago = 1100 * ms; u.others = 0 }, true},
		"idle, not yet settled":     {func(u *upload) { u.ago = 900 * ms; u.others = 0 }, false},
		"idle, on its way":          {func(u *upload) { u.ago = 1100 * ms; u.others = 0; u.pending = true }, false},
		"busy and settled":          {func(u *upload) { u.ago = 1100 * ms }, false},
		"lost on its way, or never": {func(u *upload) { u.pending = true; u.ago = 11 * time.Second; u.others = 5 }, true},
	} {
		u := given
		c.change(&u)
		if got := u.maySend(); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestSuperSeeding(t *testing.T) {
	var s SuperSeeder
	connected := map[Key]bool{1: true, 2: true}
	gone := func(k Key) bool { return !connected[k] }
	asks := func(k Key, urgent bool, now time.Duration) bool { return s.MaySend(k, Node, 7, urgent, 1, gone, now) }
	if !asks(1, false, 0) || !asks(1, false, ms) {
		t.Fatal("the first node, for both halves of the piece")
	}
	if asks(2, true, 400*ms) {
		t.Error("another node while the first may still get it")
	}
	if !s.MaySend(3, Stranger, 7, false, 1, gone, 5*ms) {
		t.Error("a stranger")
	}
	s.PeerHas(2, 7, true, 5*ms) // says nothing about node 1
	s.PeerHas(1, 7, true, 400*ms)
	if asks(2, true, 1000*ms) {
		t.Error("a node that has just got it needs time to pass it on, twice what it took to get it")
	}
	if !asks(2, true, 1300*ms) {
		t.Error("it was not passed on")
	}
	if asks(1, false, 1400*ms) {
		t.Error("node 2 is the one that has it now")
	}
	s.PeerHas(2, 7, true, 1500*ms)
	s.PeerHas(2, 7, false, 1600*ms)
	if !asks(1, false, 1700*ms) {
		t.Error("who got it has evicted it")
	}
	connected[1] = false
	if !asks(2, false, 1800*ms) {
		t.Error("who got it is gone")
	}
}

// News waits for company, but not for longer than a few pieces take.
func TestNewsWaits(t *testing.T) {
	tb := NewTable(100, 1, Params{})
	for k := range Key(20) {
		tb.AddPeer(k)
		tb.SetKind(k, Node)
		tb.SetChoked(k, false)
	}
	if d := tb.HaveDelay(1, 5); d != 0 {
		t.Errorf("what nobody has waits for %v", d)
	}
	tb.PeerHas(2, 5, true)
	before := tb.HaveDelay(1, 5)
	if before <= 100*ms {
		t.Errorf("what others have waits for %v", before)
	}
	if d := tb.HaveDelay(2, 5); d < before {
		t.Errorf("to a peer that has the piece it waits for %v, to others %v", d, before)
	}
	for i := 10; i < 60; i++ { // a piece each millisecond
		tb.PeerHas(3, i, true)
		tb.ask(tb.byKey[3], i, time.Duration(i)*ms)
		tb.Done(3, i, time.Duration(i+1)*ms)
	}
	if d := tb.HaveDelay(1, 5); d < ms || d > 20*ms {
		t.Errorf("with a piece each millisecond it waits for %v", d)
	}
}

// Who waits longest is served first, and new demands do not overtake old ones.
func TestDemandsInTurn(t *testing.T) {
	tb := NewTable(100, 1, Params{MinDepth: 2})
	tb.AddPeer(1)
	tb.SetKind(1, Origin)
	tb.SetChoked(1, false)
	for i := range 100 {
		tb.PeerHas(1, i, true)
	}
	order := []int{70, 3, 50, 20, 90, 10, 60, 5, 80, 40}
	var asked []int
	for _, i := range order {
		tb.Demand(i, true)
		if _, ok := tb.Source(i, 0, true); ok {
			asked = append(asked, i)
		}
	}
	for n := 0; n < len(asked); n++ {
		i := asked[n]
		tb.Done(1, i, time.Duration(n)*50*ms)
		tb.SetHeld(i, true)
		tb.Demand(i, false)
		for {
			j, ok := tb.Next(1, time.Duration(n)*50*ms)
			if !ok {
				break
			}
			asked = append(asked, j)
		}
		if n < 5 { // a reader comes back for more
			tb.Demand(n+30, true)
			order = append(order, n+30)
			if _, ok := tb.Source(n+30, 0, true); ok {
				asked = append(asked, n+30)
			}
		}
	}
	if !slices.Equal(asked, order) {
		t.Errorf("asked %v\nwaited %v", asked, order)
	}
}

// Few peers are asked for two pieces each, many for one.
func TestManyPeersAreAskedForLess(t *testing.T) {
	for _, peers := range []int{4, manyPeers, manyPeers + 1} {
		tb := table(t, 400, slices.Repeat([]Kind{Node}, peers)...)
		want := 2
		if peers > manyPeers {
			want = 1
		}
		got := 0
		for next(tb, 1, 0) >= 0 {
			got++
		}
		if got != want {
			t.Errorf("with %d peers one is asked for %d pieces, want %d", peers, got, want)
		}
	}
}

// A node that comes late takes what others have from them; when only few have
// it, the origin helps with what this node owns.
func TestLateNodeSparesTheOrigin(t *testing.T) {
	tb := NewTable(40, 1, Params{})
	for k := Key(0); k <= 8; k++ {
		tb.AddPeer(k)
		tb.SetKind(k, Node)
		tb.SetChoked(k, false)
	}
	tb.SetKind(0, Origin)
	tb.SetOwned(func(i int) bool { return i%2 == 0 })
	for i := range 40 {
		tb.Want(i, true)
		tb.PeerHas(0, i, true)
		for k := Key(1); k <= 8; k++ {
			tb.PeerHas(k, i, i < 20 && (i < 10 || k <= 2))
		}
	}
	if i, ok := tb.Next(0, 0); !ok || i != 10 {
		t.Errorf("asks the origin for %d, %v; all others have 0 to 9, two have 10 to 19", i, ok)
	}
	if i, ok := tb.Next(0, 0); !ok || i != 12 {
		t.Errorf("asks the origin for %d, %v", i, ok)
	}
	if i, ok := tb.Next(5, 0); !ok || i >= 10 {
		t.Errorf("asks a node for %d, %v", i, ok)
	}
}
