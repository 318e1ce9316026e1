package stall

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// fake is a source that shows life until it stops.
type fake struct {
	name  string
	every time.Duration // 0: never
	until time.Duration // since it began; 0: for ever
	weak  bool
	said  string
}

// source starts the fake; it ends with ctx.
func (f fake) source(ctx context.Context) Source {
	var n atomic.Uint64
	if f.every > 0 {
		began := time.Now()
		go func() {
			for f.until == 0 || time.Since(began) < f.until {
				select {
				case <-time.After(f.every):
					n.Add(1)
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	return Source{Name: f.name, Count: n.Load, Weak: f.weak, Last: func() string { return f.said }}
}

func TestWhenAWaitHasFailed(t *testing.T) {
	limits := Limits{Quiet: 4 * time.Minute, Weak: 10 * time.Minute, Total: 30 * time.Minute}
	const s, m = time.Second, time.Minute
	for _, test := range []struct {
		name    string
		sources []fake
		end     time.Duration // within a few seconds
		says    []string
	}{
		{"nothing at all", []fake{{name: "events"}, {name: "frames"}}, 4 * m,
			[]string{"nothing came for 4m0s: ", "events: 0 in all, none since the wait began", "frames: 0 in all"}},
		{"no source", nil, 4 * m, []string{"nothing came for 4m0s"}},
		{"slow, but each in its turn", []fake{{name: "frames", every: 200 * s, until: 10 * m}, {name: "console", every: 13 * m, until: 13 * m}, {name: "events"}}, 17 * m,
			[]string{"console: 1 in all, the last 240 s ago", "frames: 3 in all, the last"}},
		{"one chatters on", []fake{{name: "events"}, {name: "frames", every: s}}, 30 * m,
			[]string{"30m0s passed, though there were signs of life", "frames: 1"}},
		{"only the processor works", []fake{{name: "events", every: m, until: 3 * m, said: "uinit at 3 s"}, {name: "processor", every: s, weak: true}}, 13 * m,
			[]string{"nothing came for 10m0s, though it was busy", "the last 600 s ago (uinit at 3 s)"}},
		{"the processor too is quiet", []fake{{name: "processor", every: s, until: 5 * m, weak: true}}, 9 * m, []string{"nothing came for 4m0s"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				life, stop := context.WithCancel(t.Context())
				defer stop()
				var sources []Source
				for _, f := range test.sources {
					sources = append(sources, f.source(life))
				}
				began := time.Now()
				ctx, cancel := Watch(t.Context(), limits, sources...)
				defer cancel()
				<-ctx.Done()
				if took := time.Since(began); took < test.end || took > test.end+5*s {
					t.Errorf("ended after %v, want %v", took, test.end)
				}
				var e *Error
				if !errors.As(context.Cause(ctx), &e) {
					t.Fatalf("ended with %v", context.Cause(ctx))
				}
				for _, want := range test.says {
					if !strings.Contains(e.Error(), want) {
						t.Errorf("%q lacks %q", e, want)
					}
				}
			})
		})
	}
}

func TestAWaitThatIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := Limits{Quiet: time.Minute, Weak: time.Minute, Total: time.Minute}
		ctx, cancel := Watch(t.Context(), limits)
		cancel()
		if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
			t.Errorf("cancelled: %v", cause)
		}
		// A test that waits for all may stop waiting for this.
		enough := errors.New("seen enough")
		parent, leave := context.WithCancelCause(t.Context())
		ctx, cancel = Watch(parent, limits)
		defer cancel()
		leave(enough)
		<-ctx.Done()
		if cause := context.Cause(ctx); cause != enough {
			t.Errorf("left: %v", cause)
		}
	})
}
