// Package sleep waits for a time that the end of a context cuts short, and spreads
// such times.
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

// Jitter returns d, up to a fifth more or less, so that machines that were switched on
// together do not act in step.
func Jitter(d time.Duration) time.Duration {
	return d*4/5 + rand.N(d*2/5+1)
}
