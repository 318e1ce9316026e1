package agent

import (
	"sync"
	"testing"
	"time"
)

// However many look at the status page, the block daemon has little to do.
func TestStatusIsAskedSparingly(t *testing.T) {
	clock, asked := time.Now(), 0
	status := sparingly(time.Second, func() time.Time { return clock }, func() any { asked++; return asked })
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() { status() })
	}
	all.Wait()
	if asked != 1 {
		t.Errorf("asked %d times for a hundred who look at once", asked)
	}
	clock = clock.Add(time.Second)
	if got := status(); got != 2 {
		t.Errorf("a second later the answer is %v, want a new one", got)
	}
}
