package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The end comes first, then the front, each step once and within the budget.
func TestAheadSteps(t *testing.T) {
	const step = aheadStep
	for _, tt := range []struct {
		size, budget int64
		want         []int64
	}{
		{100 * step, 5 * step, []int64{98 * step, 99 * step, 0, step, 2 * step}},
		{100*step + 1, 5 * step, []int64{98 * step, 99 * step, 100 * step, 0, step}},
		{100 * step, step, []int64{98 * step}},
		{3 * step, mostAhead, []int64{step, 2 * step, 0}},
		{1000, mostAhead, []int64{0}},
		{0, mostAhead, nil},
		{100 * step, 0, nil},
	} {
		if got := aheadSteps(tt.size, tt.budget); !slices.Equal(got, tt.want) {
			t.Errorf("%d bytes, %d of them: %v, want %v", tt.size, tt.budget, got, tt.want)
		}
	}
}

func TestReadAhead(t *testing.T) {
	name := filepath.Join(t.TempDir(), "root")
	if err := readAhead(t.Context(), name, 1<<30); err == nil {
		t.Error("a medium without its image is read")
	}
	if err := os.WriteFile(name, make([]byte, 5<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := readAhead(t.Context(), name, 1<<30); err != nil {
		t.Error(err)
	}
}
