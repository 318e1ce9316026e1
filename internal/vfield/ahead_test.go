package vfield

import (
	"slices"
	"testing"
)

// What comes next in the expected order is fetched, whatever was read beside it.
func TestReadAheadInAnExpectedOrder(t *testing.T) {
	order := []int{3, 3} // one twice
	for i := range 100 {
		order = append(order, 200-2*i)
	}
	var a readAhead
	a.expected.Store(newExpected(order))
	covered := func() (n int) {
		for _, i := range order[1:] {
			if a.covers(i) {
				n++
			}
		}
		return n
	}
	if covered() != maxExpected || !a.covers(3) || a.covers(7) {
		t.Fatalf("%d pieces at the beginning", covered())
	}
	for _, c := range []struct {
		what     string
		i, cache int
		want     int // pieces covered from the first on
		changed  int
	}{
		{"a piece that is not in it", 7, 1000, maxExpected, 0},
		{"the first", 3, 1000, maxExpected + 1, 1},
		{"one further on", 200, 1000, maxExpected + 2, 1},
		{"one of the middle", 192, 1000, maxExpected + 6, 4},
		{"one before it", 198, 1000, maxExpected + 6, 0},
		{"with little room", 180, 40, 12 + 10, 0},
		{"more of it", 160, 40, 22 + 10, 10},
		{"room again", 158, 1000, 23 + maxExpected, 23},
		{"the last but one", 4, 1000, 101, 101 - 23 - maxExpected},
		{"the last", 2, 1000, 101, 0},
	} {
		changed := a.expected.Load().advance(c.i, c.cache)
		if got := covered(); got != c.want || len(changed) != c.changed {
			t.Errorf("%s: %d covered, want %d; %d changed, want %d", c.what, got, c.want, len(changed), c.changed)
		}
	}
}

func TestReadAhead(t *testing.T) {
	var a readAhead
	if a.covers(0) {
		t.Error("something is fetched ahead of nobody")
	}
	for _, c := range []struct {
		what          string
		was, i, cache int
		want          []span
	}{
		{"the first read", 0, 5, 100, []span{{6, 6}}},
		{"forward", 5, 6, 100, []span{{6, 6}, {7, 8}}},
		{"on", 6, 7, 100, []span{{7, 8}, {8, 10}}},
		{"on", 7, 8, 100, []span{{8, 10}, {9, 13}}},
		{"on", 8, 9, 100, []span{{9, 13}, {10, 18}}},
		{"on", 9, 10, 100, []span{{10, 18}, {11, 19}}},
		{"a quarter of a small cache", 10, 11, 20, []span{{11, 19}, {12, 17}}},
		{"more is pinned than there is room for", 11, 12, -3, []span{{12, 17}, {13, 13}}},
		{"a jump", 12, 50, 100, []span{{13, 13}, {51, 51}}},
		{"forward", 50, 51, 100, []span{{51, 51}, {52, 53}}},
	} {
		got := a.advance(c.was, c.i, c.cache)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
		if w := *a.window.Load(); a.covers(w.lo) != (w.hi > w.lo) || a.covers(w.hi) || a.covers(w.lo-1) {
			t.Errorf("%s: covers other pieces than %v", c.what, w)
		}
	}
}

// What a boot does not read after a piece is known from the boots before it.
func TestNothingIsGuessedAfterAnExpectedPiece(t *testing.T) {
	var a readAhead
	a.expected.Store(newExpected([]int{10, 11, 40}))
	for _, c := range []struct{ was, i, ahead int }{{0, 10, 0}, {10, 11, 0}, {11, 12, 1}, {12, 13, 2}, {13, 39, 0}, {39, 40, 0}, {40, 41, 1}} {
		a.advance(c.was, c.i, 100)
		if w := *a.window.Load(); w.hi-w.lo != c.ahead {
			t.Errorf("piece %d after %d: %d fetched ahead, want %d", c.i, c.was, w.hi-w.lo, c.ahead)
		}
	}
}
