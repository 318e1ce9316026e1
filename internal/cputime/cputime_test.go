package cputime

import (
	"errors"
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

// A Reader sees what passes between two readings, as one who opens the file again does.
func TestReader(t *testing.T) {
	r, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const slack, apart = 5, 20 // ticks; what waits for a disk may count less later (proc_stat(5))
	for range 3 {
		before, errBefore := Read()
		got, err := r.Read()
		after, errAfter := Read()
		if err := errors.Join(errBefore, err, errAfter); err != nil {
			t.Fatal(err)
		}
		if got.total < before.total-slack || got.total > after.total+slack {
			t.Errorf("%v ticks between %v and %v", got.total, before.total, after.total)
		}
		for now := after; now.total < after.total+apart; {
			if now, err = Read(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// What it costs to ask, again and again and once.
func BenchmarkReader(b *testing.B) {
	r, err := Open()
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	for b.Loop() {
		if _, err := r.Read(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	for b.Loop() {
		if _, err := Read(); err != nil {
			b.Fatal(err)
		}
	}
}
