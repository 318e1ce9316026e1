// Package stall distinguishes a wait that takes long from one that will never end.
//
// How long a machine takes depends on the host that runs it; that it does
// something does not. So a wait is given sources of life (events, text on a
// console, frames on a network, time on a processor), and ends when all of
// them have been silent for a while. It is not a timeout for what is waited
// for: Limits.Total is there only for what chatters for ever.
//
// The invariant: while a source shows life, the wait ends by Total alone, and
// the error names each source with what it said last and when.
package stall

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// Source is something that shows that a wait makes progress.
type Source struct {
	// Name says what is counted, in the plural: "events".
	Name string
	// Count grows with each sign of life. It is asked once a second, by one
	// goroutine for each wait.
	Count func() uint64
	// Last describes the newest sign for people. It may be nil.
	Last func() string
	// Weak: work that nobody sees, as that of a processor. It makes a silence
	// longer, and not endless: Limits.Weak.
	Weak bool
}

// Limits say when a wait ends.
type Limits struct {
	// Quiet is how long no source has shown life.
	Quiet time.Duration
	// Weak is how long none but the weak ones has.
	Weak time.Duration
	// Total is how long the wait lasts at most.
	Total time.Duration
}

// interval is how often the sources are asked.
const interval = time.Second

// Error is why a wait ended.
type Error struct {
	// Why is a clause: "nothing came for 4m0s".
	Why string
	// Seen has a clause for each source.
	Seen []string
}

// Error names each source with what it said last.
func (e *Error) Error() string { return e.Why + ": " + strings.Join(e.Seen, "; ") }

// Watch returns a context that ends when the wait it is used for makes no progress; its
// cause is then an *Error. The caller cancels it when the wait is over, which
// waits for what Watch started.
func Watch(parent context.Context, limits Limits, sources ...Source) (context.Context, context.CancelFunc) {
	ctx, end := context.WithCancelCause(parent)
	over := make(chan struct{})
	go func() {
		defer close(over)
		watch(ctx, end, newWatch(limits, sources))
	}()
	return ctx, func() {
		end(nil)
		<-over
	}
}

func watch(ctx context.Context, end context.CancelCauseFunc, w *watched) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			if err := w.check(now); err != nil {
				end(err)
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// watched is one wait.
type watched struct {
	limits  Limits
	began   time.Time
	sources []seen
}

// seen is a source and what was seen of it.
type seen struct {
	Source
	count uint64
	at    time.Time // when the count grew; the beginning of the wait, if never
	grew  bool
}

func newWatch(limits Limits, sources []Source) *watched {
	w := &watched{limits: limits, began: time.Now()}
	for _, s := range sources {
		w.sources = append(w.sources, seen{Source: s, count: s.Count(), at: w.began})
	}
	return w
}

// check asks every source, and returns why the wait will not end.
func (w *watched) check(now time.Time) error {
	any, strong := w.began, w.began // when the last life was seen
	for i := range w.sources {
		s := &w.sources[i]
		if n := s.Count(); n != s.count {
			s.count, s.at, s.grew = n, now, true
		}
		any = later(any, s.at)
		if !s.Weak {
			strong = later(strong, s.at)
		}
	}
	switch {
	case now.Sub(any) >= w.limits.Quiet:
		return w.err(now, "nothing came for %v", w.limits.Quiet)
	case now.Sub(strong) >= w.limits.Weak:
		return w.err(now, "nothing came for %v, though it was busy", w.limits.Weak)
	case now.Sub(w.began) >= w.limits.Total:
		return w.err(now, "%v passed, though there were signs of life", w.limits.Total)
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (w *watched) err(now time.Time, why string, d time.Duration) error {
	e := &Error{Why: fmt.Sprintf(why, d)}
	for i := range w.sources {
		e.Seen = append(e.Seen, w.sources[i].describe(now))
	}
	return e
}

func (s *seen) describe(now time.Time) string {
	text := fmt.Sprintf("%s: %d in all", s.Name, s.count)
	if s.grew {
		text += fmt.Sprintf(", the last %.0f s ago", now.Sub(s.at).Seconds())
	} else {
		text += ", none since the wait began"
	}
	if s.Last != nil {
		if last := s.Last(); last != "" {
			text += " (" + last + ")"
		}
	}
	return text
}
