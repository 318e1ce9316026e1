package main

import "testing"

func TestPieceMemory(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		memory  int64
		percent int
		image   int64
		want    int64
	}{
		{960 * mib, 25, 193 * mib, 193 * mib}, // Debian in 1 GB: all of it
		{470 * mib, 25, 43 * mib, 43 * mib},   // tiny in 512 MB: all of it
		{470 * mib, 25, 2000 * mib, 470 * mib / 100 * 25},
		{205 * mib, 90, 193 * mib, 77 * mib}, // the system has to live, too
		{100 * mib, 25, 193 * mib, 16 * mib},
		{100 * mib, 25, 3 * mib, 3 * mib},
		{64 << 30, 25, 2000 * mib, 2000 * mib},
	} {
		if got := pieceMemory(c.memory, c.percent, c.image); got != c.want {
			t.Errorf("%d MiB, %d%%, image of %d MiB: %d MiB, want %d", c.memory/mib, c.percent, c.image/mib, got/mib, c.want/mib)
		}
	}
}
