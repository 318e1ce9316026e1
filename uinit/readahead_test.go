package main

import (
	"context"
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

// Reading the init ahead fails on nothing that the handover will report, and ends when
// it is told.
func TestReadInit(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	root := t.TempDir()
	for _, init := range []string{"", "#!/sbin/init\n", "neither"} {
		if init != "" {
			if err := os.MkdirAll(filepath.Join(root, "sbin"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, "sbin/init"), []byte(init), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		for _, ctx := range []context.Context{t.Context(), over} {
			if err := readInit(ctx, root, ""); err != nil {
				t.Errorf("init %q: %v", init, err)
			}
		}
	}
	if err := willNeed(t.Context(), filepath.Join(root, "missing"), initStep, wholeSteps); err == nil {
		t.Error("what is missing is read")
	}
}
