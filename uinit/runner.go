package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"viver.lan/internal/event"
	"viver.lan/internal/sleep"
)

// policy says what happens when a stage fails.
type policy string

const (
	stop    policy = "stop"    // rescue shell
	degrade policy = "degrade" // the boot goes on without it
	retry   policy = "retry"   // again, then the rescue shell
)

// stage is one row of the boot table.
type stage struct {
	name      string
	does      string // for people; README's table shows it
	onFailure policy
	// deadline bounds one attempt.
	deadline time.Duration
	run      func(context.Context) (detail string, err error)
}

// attempts is how often a stage is tried before the rescue shell starts, which then
// reboots by itself, so a network that comes up later is still found.
const attempts = 5

// errStopped is the end of a boot that cannot go on.
var errStopped = errors.New("boot stopped")

// errRefused marks a failure that another attempt cannot repair: something was
// offered and must not be used.
var errRefused = errors.New("refused")

// runner walks the stage list, times it and reports it.
type runner struct {
	log    *slog.Logger
	events *event.Log
	pause  time.Duration // between attempts
	// took collects the seconds each stage took.
	took map[string]float64
}

// run walks the list from top to bottom. Its error wraps errStopped and says
// which stage failed and why.
func (r *runner) run(ctx context.Context, stages []stage) error {
	for i, s := range stages {
		r.events.Emit(event.Stage{Name: s.name, State: event.Started})
		began := time.Now()
		detail, err := r.attempt(ctx, s)
		seconds := time.Since(began).Seconds()
		r.took[s.name] = seconds
		switch {
		case err == nil:
			r.events.Emit(event.Stage{Name: s.name, State: event.Done, Seconds: seconds, Detail: detail})
			r.log.Info(fmt.Sprintf("[%d/%d] %s: %s", i+1, len(stages), s.name, detail), "seconds", fmt.Sprintf("%.1f", seconds))
		case s.onFailure == degrade:
			r.events.Emit(event.Stage{Name: s.name, State: event.Degraded, Seconds: seconds, Detail: err.Error()})
			r.log.Warn(fmt.Sprintf("[%d/%d] %s: going on without it", i+1, len(stages), s.name), "error", err)
		default:
			r.events.Emit(event.Stage{Name: s.name, State: event.Stopped, Seconds: seconds, Detail: err.Error()})
			return fmt.Errorf("%w at %s: %w", errStopped, s.name, err)
		}
	}
	return nil
}

func (r *runner) attempt(ctx context.Context, s stage) (string, error) {
	tries := 1
	if s.onFailure == retry {
		tries = attempts
	}
	for n := 1; ; n++ {
		attemptCtx, cancel := context.WithTimeout(ctx, s.deadline)
		detail, err := s.run(attemptCtx)
		cancel()
		if err == nil || n == tries || ctx.Err() != nil || errors.Is(err, errRefused) {
			return detail, err
		}
		r.events.Emit(event.Stage{Name: s.name, State: event.Retrying, Detail: err.Error()})
		r.log.Warn(s.name+": trying again", "attempt", fmt.Sprintf("%d of %d", n+1, tries), "in", r.pause, "error", err)
		if sleep.For(ctx, r.pause) != nil {
			return "", ctx.Err()
		}
	}
}
