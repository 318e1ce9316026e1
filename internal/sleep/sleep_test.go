package sleep

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestFor(t *testing.T) {
	enough := errors.New("enough")
	for _, tt := range []struct {
		name      string
		wait, end time.Duration
		took      time.Duration
		err       error
	}{
		{"until the time", time.Second, time.Minute, time.Second, nil},
		{"until the end", time.Minute, time.Second, time.Second, enough},
		{"not at all", 0, time.Second, 0, nil},
		{"a time that has passed", -time.Hour, time.Second, 0, nil},
		{"after the end", time.Minute, 0, 0, enough},
		{"not at all after the end", 0, 0, 0, enough},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, end := context.WithCancelCause(t.Context())
				if tt.end == 0 {
					end(enough)
				}
				defer time.AfterFunc(tt.end, func() { end(enough) }).Stop()
				began := time.Now()
				if err := For(ctx, tt.wait); err != tt.err || time.Since(began) != tt.took {
					t.Errorf("%v after %v, want %v after %v", err, time.Since(began), tt.err, tt.took)
				}
			})
		})
	}
}

func TestJitter(t *testing.T) {
	for _, d := range []time.Duration{0, 1, time.Second} {
		for range 1000 {
			if j := Jitter(d); j < d*4/5 || j > d*6/5 {
				t.Fatalf("%v becomes %v, want a fifth more or less", d, j)
			}
		}
	}
}

// TestEvery: what is repeated is not called any more when stop has returned.
func TestEvery(t *testing.T) {
	var calls atomic.Int64
	thrice := make(chan struct{})
	stop := Every(time.Millisecond, func() {
		if calls.Add(1) == 3 {
			close(thrice)
		}
	})
	<-thrice
	stop()
	before := calls.Load()
	time.Sleep(20 * time.Millisecond)
	if after := calls.Load(); after != before {
		t.Errorf("%d calls when it had stopped, %d later", before, after)
	}
}
