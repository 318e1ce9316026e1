// Package sleep waits for a time that the end of a context cuts short, spreads such
// times, and repeats what is to be done again and again.
package sleep

import (
	"context"
	"math/rand/v2"
	"time"
)

// For waits for d. If ctx ends first it returns its cause. For d <= 0 it returns at
// once.
func For(ctx context.Context, d time.Duration) error {
	if d <= 0 || ctx.Err() != nil {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Every calls f every d, in a goroutine of its own, until stop is called, which waits for
// the last call. stop is called once.
func Every(d time.Duration, f func()) (stop func()) {
	end, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(d)
		defer tick.Stop()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
				f()
			}
		}
	}()
	return func() {
		close(end)
		<-done
	}
}

// Jitter returns d, up to a fifth more or less, so that machines that were switched on
// together do not act in step.
func Jitter(d time.Duration) time.Duration {
	return d*4/5 + rand.N(d*2/5+1)
}
