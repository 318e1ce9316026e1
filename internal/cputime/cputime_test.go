package cputime

import (
	"math"
	"testing"
)

func TestBusy(t *testing.T) {
	before, err := Parse([]byte("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1\n"))
	if err != nil {
		t.Fatal(err)
	}
	after, err := Parse([]byte("cpu  150 0 110 730 110 0 0 0 0 0\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := Busy(before, after); math.Abs(got-0.6) > 1e-9 {
		t.Errorf("busy %g, want 0.6", got)
	}
	if _, err := Parse([]byte("intr 5\n")); err == nil {
		t.Error("something else was taken for CPU times")
	}
}
