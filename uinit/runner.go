package main

import (
	"cmp"
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
	name string
	// needs are the stages above that have ended, or degraded, before this one begins.
	needs []string
	// onFirst are those that it needs on the first node, which finds much on its
	// medium that others fetch; nil where it needs the same.
	onFirst   []string
	does      string // for people; README's table shows it
	onFailure policy
	// deadline bounds one attempt.
	deadline time.Duration
	// run reads what the stages that it needs have left in the node, and leaves there
	// what others need, unless it is too late: they go on without it by then.
	run func(context.Context) (detail string, err error)
}

// attempts is how often a stage is tried before the rescue shell starts, which then
// reboots by itself, so a network that comes up later is still found.
const attempts = 5

// grace is how long an attempt may take to end when its context is over.
const grace = 5 * time.Second

// tooLate reports whether a stage that hung has been given up, or is about to be.
func tooLate(ctx context.Context) bool {
	end, ok := ctx.Deadline()
	return ok && time.Since(end) > grace-time.Second
}

// errStopped is the end of a boot that cannot go on.
var errStopped = errors.New("boot stopped")

// errRefused marks a failure that another attempt cannot repair: something was
// offered and must not be used.
var errRefused = errors.New("refused")

// errHangs is the failure of an attempt that its deadline does not end. No other
// follows, because the two might meet.
var errHangs = errors.New("it hangs")

// runner starts the stages of the list, times them and reports them.
type runner struct {
	log    *slog.Logger
	events *event.Log
	pause  time.Duration // between attempts
	grace  time.Duration // see the constant
	// first tells whether this is the first node, once the stage medium has ended.
	first func() bool
	// took collects the seconds each stage took.
	took map[string]float64
}

// outcome is the end of a stage.
type outcome struct {
	place   int // in the list
	detail  string
	err     error
	seconds float64
}

// run starts each stage as soon as what it needs has ended. When one stops the boot,
// the others are cancelled and waited for. Its error wraps errStopped and says which
// stage failed and why.
func (r *runner) run(ctx context.Context, stages []stage) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	order, ended, running := newPlan(stages), make(chan outcome), 0
	var stopped error
	for {
		if stopped == nil {
			for _, i := range order.next(r.first) {
				running++
				r.events.Emit(event.Stage{Name: stages[i].name, State: event.Started})
				go func() { ended <- r.walk(ctx, stages[i], i) }()
			}
		}
		if running == 0 {
			return cmp.Or(stopped, order.unreached())
		}
		o := <-ended
		running--
		label := fmt.Sprintf("[%d/%d] %s", o.place+1, len(stages), stages[o.place].name)
		if stopped != nil {
			r.log.Info(label+": ended with the boot", "error", o.err)
			continue
		}
		if stopped = r.report(label, stages[o.place], o); stopped != nil {
			cancel()
			continue
		}
		order.end(o.place)
	}
}

// report tells how a stage ended. It returns an error if the boot cannot go on.
func (r *runner) report(label string, s stage, o outcome) error {
	r.took[s.name] = o.seconds
	e := event.Stage{Name: s.name, State: event.Done, Seconds: o.seconds, Detail: o.detail}
	if o.err != nil {
		e.Detail = o.err.Error()
	}
	switch {
	case o.err == nil:
		r.events.Emit(e)
		r.log.Info(label+": "+o.detail, "seconds", fmt.Sprintf("%.1f", o.seconds))
	case s.onFailure == degrade:
		e.State = event.Degraded
		r.events.Emit(e)
		r.log.Warn(label+": going on without it", "error", o.err)
	default:
		e.State = event.Stopped
		r.events.Emit(e)
		return fmt.Errorf("%w at %s: %w", errStopped, s.name, o.err)
	}
	return nil
}

// walk goes through one stage, with as many attempts as it may have.
func (r *runner) walk(ctx context.Context, s stage, place int) outcome {
	began := time.Now()
	detail, err := r.attempt(ctx, s)
	return outcome{place, detail, err, time.Since(began).Seconds()}
}

func (r *runner) attempt(ctx context.Context, s stage) (string, error) {
	tries := 1
	if s.onFailure == retry {
		tries = attempts
	}
	for n := 1; ; n++ {
		detail, err := r.once(ctx, s)
		if err == nil || n == tries || ctx.Err() != nil || errors.Is(err, errRefused) || errors.Is(err, errHangs) {
			return detail, err
		}
		r.events.Emit(event.Stage{Name: s.name, State: event.Retrying, Detail: err.Error()})
		r.log.Warn(s.name+": trying again", "attempt", fmt.Sprintf("%d of %d", n+1, tries), "in", r.pause, "error", err)
		if sleep.For(ctx, r.pause) != nil {
			return "", ctx.Err()
		}
	}
}

// once makes one attempt. One that does not end when its time is over, because it
// hangs in the kernel, is given up.
func (r *runner) once(ctx context.Context, s stage) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.deadline)
	defer cancel()
	ended := make(chan outcome, 1)
	go func() {
		detail, err := s.run(ctx)
		ended <- outcome{detail: detail, err: err}
	}()
	var late <-chan time.Time
	for over := ctx.Done(); ; {
		select {
		case o := <-ended:
			return o.detail, o.err
		case <-over:
			over, late = nil, time.After(r.grace)
		case <-late:
			return "", fmt.Errorf("%w: %w", errHangs, context.Cause(ctx))
		}
	}
}
