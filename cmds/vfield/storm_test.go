package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// storm lets many clients read at random places until ctx ends: every answer
// is right, and none is an error. A broken connection is made again. reads
// counts the answers.
func (m *machine) storm(ctx context.Context, clients int, reads *atomic.Int64) (wait func()) {
	t := m.room.t
	var all sync.WaitGroup
	for k := range clients {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(k), 3))
			buf := make([]byte, 128<<10)
			var c *nbdClient
			for ctx.Err() == nil {
				p := buf[:512<<rng.IntN(9)]
				off := rng.Int64N(int64(len(m.room.data)-len(p))) &^ 511
				var err error
				if c == nil {
					c, err = m.dial(ctx)
				}
				if err == nil {
					err = c.readAt(p, off)
				}
				switch {
				case err == nil:
					reads.Add(1)
				case ctx.Err() != nil:
				case errors.Is(err, errEIO) || errors.Is(err, errWrongBytes):
					t.Errorf("client %d: %d bytes at %d: %v", k, len(p), off, err)
					return
				default:
					c = nil
					time.Sleep(20 * time.Millisecond)
				}
			}
		})
	}
	return all.Wait
}

// Sixteen clients read at random from a node that has nothing yet, then the
// daemon is killed ten times under this load. It finds its pieces again, and
// no client ever sees a wrong byte or an error.
func TestNetnsStormAndTenKills(t *testing.T) {
	t.Parallel()
	r := newRoom(t, 3, 100, 256)
	if r == nil {
		return
	}
	r.origin(0)
	r.start(1, r.know(0)...)
	n := r.start(2, append(r.know(0, 1), "--store", filepath.Join(t.TempDir(), "pieces"))...)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var reads atomic.Int64
	wait := n.storm(ctx, 16, &reads)
	more := func(what string) {
		t.Helper()
		before := reads.Load()
		until(t, what, func() bool { return reads.Load() > before+200 })
	}
	more("the storm is on")
	rng := rand.New(rand.NewPCG(1, 9))
	found := func() int { return strings.Count(n.log.String(), "pieces found in the store hashed") }
	for i := range 10 {
		n.kill()
		n.run()
		more("all go on after a kill")
		until(t, "the daemon finds its pieces", func() bool { return found() == i+1 })
		time.Sleep(time.Duration(rng.Int64N(int64(300 * time.Millisecond))))
	}
	r.complete(n)
	cancel()
	wait()
	s, err := n.status()
	if err != nil {
		t.Fatal(err)
	}
	if again := s.Transfer.FromOrigin + s.Transfer.FromPeers; again > uint64(r.info.Size)/2 {
		t.Errorf("after the last kill %d bytes of %d were fetched again", again, r.info.Size)
	}
	t.Logf("%d reads", reads.Load())
}
