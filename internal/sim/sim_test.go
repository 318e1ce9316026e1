package sim

import (
	"math"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

func run(t *testing.T, c Config) Result {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Run()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestAHundredNodes(t *testing.T) {
	r := run(t, Config{Nodes: 100, Pieces: 512, Seed: 1})
	t.Logf("mean %.3f, worst %.3f of the bound, %.3f origin copies, replicas at %v", r.Mean, r.Worst, r.OriginCopies, r.Replicas)
	if r.Finished != 100 || r.Lost != 0 {
		t.Errorf("%d finished, %d pieces lost", r.Finished, r.Lost)
	}
	if r.Mean < 0.65 || r.Worst < 0.6 || r.Mean > 1 {
		t.Errorf("mean %.3f and worst %.3f of the bound", r.Mean, r.Worst)
	}
	if r.OriginCopies < 1 || r.OriginCopies > 1.1 {
		t.Errorf("the origin sent %.3f images", r.OriginCopies)
	}
	for k := 2; k < len(r.Replicas); k++ {
		if r.Replicas[k] < r.Replicas[k-1] || r.Replicas[k] == 0 {
			t.Errorf("replicas at %v", r.Replicas)
		}
	}
}

// A few nodes come close to what the link gives.
func TestFewNodesReachTheLink(t *testing.T) {
	for n, least := range map[int]float64{1: 0.97, 2: 0.95, 4: 0.95, 8: 0.93, 16: 0.9} {
		r := run(t, Config{Nodes: n, Pieces: 1024, Link: 100e6 / 8, Seed: 3})
		t.Logf("N=%2d: mean %.3f, worst %.3f, %.3f origin copies", n, r.Mean, r.Worst, r.OriginCopies)
		if r.Mean < least || r.Worst < least-0.05 || r.Mean > 1 || r.OriginCopies > 1.1 {
			t.Errorf("N=%d: %+v", n, r)
		}
	}
}

func TestSameSeedSameResult(t *testing.T) {
	c := Config{Nodes: 20, Pieces: 128, Seed: 5, Deaths: 0.25, Reborn: true, Skew: 100 * time.Millisecond}
	if a, b := run(t, c), run(t, c); !reflect.DeepEqual(a, b) {
		t.Errorf("%+v\nand %+v", a, b)
	}
	c = Config{Nodes: 20, Pieces: 512, Seed: 5}
	a := run(t, c)
	c.Seed = 6
	d := run(t, c)
	if reflect.DeepEqual(a, d) {
		t.Error("the seed changes nothing")
	}
	if math.Abs(d.Mean/a.Mean-1) > 0.1 {
		t.Errorf("another seed, another world: %+v\nand %+v", a, d)
	}
}

// Nodes die while the image spreads: those that live get it all, also what
// only the dead had.
func TestDeaths(t *testing.T) {
	c := Config{Nodes: 40, Pieces: 256, Seed: 2, Deaths: 0.3}
	r := run(t, c) // it fails unless all that live have everything
	t.Logf("%+v", r)
	if r.Finished < 20 || r.Finished == 40 || r.Lost != 0 {
		t.Errorf("%d of 40 finished, %d pieces lost: some, and not half of them, have died", r.Finished, r.Lost)
	}
	c.Reborn = true
	if r := run(t, c); r.Finished < 40 {
		t.Errorf("%d finished, 40 live", r.Finished)
	}
}

// Half as many liars as nodes, who would own a third of the pieces: the honest
// take little longer than alone.
func TestLiars(t *testing.T) {
	c := Config{Nodes: 16, Pieces: 1024, Link: 100e6 / 8, Seed: 3}
	alone := run(t, c)
	for _, liars := range []int{1, 8} {
		c.Liars = liars
		r := run(t, c)
		t.Logf("%d liars: mean %.3f, worst %.3f, alone %.3f; %.3f origin copies", liars, r.Mean, r.Worst, alone.Mean, r.OriginCopies)
		if r.Finished != 16 || r.Worst < alone.Worst/1.3 || r.OriginCopies > 1.3 {
			t.Errorf("%d liars: %+v\nalone %+v", liars, r, alone)
		}
	}
}

// More nodes than connections: partial views must do.
func TestPartialViews(t *testing.T) {
	r := run(t, Config{Nodes: 150, Pieces: 128, Peers: 30, Enough: 15, Seed: 2})
	t.Logf("%+v", r)
	if r.Finished != 150 || r.OriginCopies > 1.5 {
		t.Errorf("%+v", r)
	}
}

func TestLinksBindASpeed(t *testing.T) {
	// A slow origin is the bound, whatever the others can do.
	r := run(t, Config{Nodes: 5, Pieces: 256, OriginLink: 10e6, Seed: 1})
	if want := 256 * float64(128<<10) / 10e6; math.Abs(r.Bound.Seconds()-want) > 1e-6 || r.Mean < 0.9 || r.Mean > 1 {
		t.Errorf("bound %v, mean %.3f; want %.2f s and nearly 1", r.Bound, r.Mean, want)
	}
}

func TestQueueIsInOrder(t *testing.T) {
	var q queue
	x := uint64(1)
	for range 5000 {
		x = x*6364136223846793005 + 1442695040888963407
		q.push(event{at: time.Duration(x >> 56), node: int32(q.made)})
	}
	last := event{at: -1}
	for n := range 5000 {
		e, ok := q.pop()
		if !ok || !last.before(&e) {
			t.Fatalf("event %d: %+v after %+v", n, e, last)
		}
		last = e
	}
	if _, ok := q.pop(); ok {
		t.Error("more events than were put in")
	}
}

func TestBed(t *testing.T) {
	if _, err := ReadBed(filepath.Join(t.TempDir(), "none.json")); err == nil {
		t.Error("a file that is not there was read")
	}
	rows, err := ReadBed("testdata/vfield.json")
	if err != nil || len(rows) != 2 {
		t.Fatalf("%+v, %v: want the two rows of our own system on throttled links, all at once", rows, err)
	}
	for _, b := range rows {
		c, err := Compare(b, 1)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("N=%d: bed %.3f, simulated %.3f (%+.1f %%)", b.N, b.Mean, c.Sim.Mean, 100*c.Off())
		if !c.Agrees() {
			t.Errorf("N=%d: bed %.3f, simulated %.3f: more than a tenth apart", b.N, b.Mean, c.Sim.Mean)
		}
	}
}

// The more copies, the less is lost; with repair, churn that would in the end
// have taken everything takes little.
func TestSurvival(t *testing.T) {
	var lost []int
	for r := 2; r <= 5; r++ {
		c := Churn{Nodes: 60, Pieces: 256, Copies: r, Lifetime: 10 * time.Minute, Length: 10 * time.Minute, Seed: 1}
		s, err := Survive(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := Survive(t.Context(), c); again != s {
			t.Errorf("the same seed gave %+v and %+v", s, again)
		}
		t.Logf("%d copies: %+v", r, s)
		lost = append(lost, s.Lost)
		if s.Deaths < 30 || s.Fetched == 0 {
			t.Errorf("%d copies: %+v: nothing happened", r, s)
		}
	}
	if lost[0] <= lost[1] || lost[1] < lost[2] || lost[2] > 2 || lost[3] > 2 {
		t.Errorf("lost with 2 to 5 copies: %v", lost)
	}
	if _, err := Survive(t.Context(), Churn{Nodes: 3, Copies: 4}); err == nil {
		t.Error("more copies than nodes")
	}
}

// Machines that claim everything and hold nothing come, are left pieces to keep,
// and leave together: whoever held a piece kept it until others proved that they
// do.
func TestLiarsLeaveTogether(t *testing.T) {
	for _, liars := range []int{1, 4, 20} {
		s, err := Survive(t.Context(), Churn{Nodes: 40, Pieces: 256, Liars: liars, Lifetime: 1e4 * time.Hour, Length: 4 * time.Minute, Seed: 1})
		if err != nil {
			t.Fatal(err)
		}
		if s.Lost != 0 || s.Fewest < 3 || s.Deaths != 0 || s.Decided < 3 {
			t.Errorf("%d liars: %+v", liars, s)
		}
	}
}
