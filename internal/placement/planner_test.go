package placement

import (
	"testing"
	"time"

	"viver.lan/internal/identity/identitytest"
)

// watched runs a planner a second at a time and notes when it decides.
type watched struct {
	*Planner
	now     time.Duration
	last    *Assignment
	decided []time.Duration
}

func watch(im Image) *watched {
	k := NewPlanner(im)
	return &watched{Planner: k, last: k.current}
}

// see lets time pass with these members.
func (w *watched) see(members []Node, d time.Duration) {
	for end := w.now + d; w.now < end; w.now += time.Second {
		if a := w.Update(w.now, members); a != w.last {
			w.last = a
			w.decided = append(w.decided, w.now)
		}
	}
}

// stable returns a planner that works with these members for long.
func stable(t *testing.T, im Image, members []Node) *watched {
	t.Helper()
	w := watch(im)
	w.see(members, 100*time.Second)
	if len(w.decided) != 1 || len(w.last.Nodes()) != len(members) {
		t.Fatalf("decided at %v with %d members, want once with %d", w.decided, len(w.last.Nodes()), len(members))
	}
	w.decided = nil
	return w
}

func without(nodes []Node, from, to int) []Node {
	return append(append([]Node{}, nodes[:from]...), nodes[to:]...)
}

func TestPlannerWaitsForALoss(t *testing.T) {
	nodes := network(20, 400*mib, 400*mib, 1)
	w := stable(t, imageOf(600), nodes)
	lost := w.now
	w.see(without(nodes, 3, 4), 20*time.Second)
	if w.decided != nil {
		t.Fatalf("acted after %v on a loss that endangers nothing", w.decided[0]-lost)
	}
	w.see(nodes, 20*time.Second)
	if w.decided != nil {
		t.Fatal("acted on a machine that came back")
	}
	lost = w.now
	w.see(without(nodes, 3, 4), 40*time.Second)
	if len(w.decided) != 1 || w.decided[0]-lost < lossQuiet || len(w.last.Nodes()) != 19 {
		t.Fatalf("decided %v after the loss at %v", w.decided, lost)
	}
}

func TestPlannerActsAtOnceInDanger(t *testing.T) {
	nodes := network(20, 400*mib, 400*mib, 1)
	w := stable(t, imageOf(600), nodes)
	lost := w.now
	w.see(without(nodes, 3, 6), 40*time.Second) // some piece had two copies there
	if len(w.decided) != 1 || w.decided[0] != lost {
		t.Fatalf("decided %v after losses at %v", w.decided, lost)
	}
	// Two copies are all that there is room for: each loss counts.
	nodes = network(3, 500*mib, 500*mib, 1)
	w = stable(t, imageOf(600), nodes)
	lost = w.now
	w.see(nodes[1:], 40*time.Second)
	if len(w.decided) != 1 || w.decided[0] != lost {
		t.Fatalf("decided %v after the loss at %v", w.decided, lost)
	}
}

// A machine without room for pieces takes nothing along.
func TestPlannerWaitsForTheEmpty(t *testing.T) {
	nodes := append(network(2, 400*mib, 400*mib, 1), Node{ID: identitytest.Named("tiny"), Weight: mib})
	w := stable(t, imageOf(600), nodes)
	lost := w.now
	w.see(nodes[:2], 40*time.Second)
	if len(w.decided) != 1 || w.decided[0]-lost < lossQuiet {
		t.Fatalf("decided %v after the loss at %v", w.decided, lost)
	}
}

// A room of forty machines is switched off, one a second: the last ones are
// not told to take more with each that goes, and never more than they can hold.
func TestPlannerAndARoomSwitchedOff(t *testing.T) {
	im := imageOf(600)
	nodes := network(40, 200*mib, 200*mib, 1)
	w := stable(t, im, nodes)
	begin := w.now
	for n := range 37 {
		w.see(nodes[n+1:], time.Second)
	}
	if n := len(w.decided); n < 1 || n > 6 {
		t.Errorf("%d decisions in 37 s, want a few: %v from %v", n, w.decided, begin)
	}
	w.see(nodes[37:], 60*time.Second)
	check(t, im, w.last, 4)
	if len(w.last.Nodes()) != 3 {
		t.Errorf("works with %d members, 3 are left", len(w.last.Nodes()))
	}
}

// Machines that boot over some seconds are taken in a few steps, and a machine
// that is gone meanwhile keeps its place.
func TestPlannerTakesJoinsTogether(t *testing.T) {
	nodes := network(40, 400*mib, 400*mib, 1)
	w := stable(t, imageOf(600), nodes[:10])
	for n := 11; n <= 30; n++ {
		w.see(nodes[1:n], time.Second)
	}
	if n := len(w.decided); n < 1 || n > 5 || w.last.Index(nodes[0].ID) < 0 {
		t.Errorf("%d decisions in 20 s; the missing one has place %d", n, w.last.Index(nodes[0].ID))
	}
	// Another budget is news, too.
	w.see(nodes[:30], 10*time.Second)
	w.decided = nil
	changed := append([]Node{}, nodes[:30]...)
	changed[4].Weight = 0
	w.see(changed, 10*time.Second)
	if len(w.decided) != 1 || len(w.last.holders) == 0 || w.last.Nodes()[w.last.Index(nodes[4].ID)].Weight != 0 {
		t.Errorf("a changed budget is not seen: %v", w.decided)
	}
}
