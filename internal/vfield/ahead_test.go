package vfield

import (
	"slices"
	"testing"
)

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
		{"forward", 5, 6, 100, []span{{6, 6}, {7, 15}}},
		{"on", 6, 7, 100, []span{{7, 15}, {8, 16}}},
		{"a quarter of a small cache", 7, 8, 20, []span{{8, 16}, {9, 14}}},
		{"more is pinned than there is room for", 8, 9, -3, []span{{9, 14}, {10, 10}}},
		{"a jump", 9, 50, 100, []span{{10, 10}, {51, 51}}},
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
