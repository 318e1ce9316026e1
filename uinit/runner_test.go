package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"viver.lan/internal/event"
)

func newRunner(out *bytes.Buffer) *runner {
	events := event.NewLog("uinit", func() time.Duration { return 0 }, out)
	return &runner{log: slog.New(slog.DiscardHandler), events: events, first: func() bool { return false }, grace: time.Minute, took: map[string]float64{}}
}

func states(t *testing.T, out *bytes.Buffer) string {
	t.Helper()
	var list []string
	for line := range strings.Lines(out.String()) {
		var rec event.Record
		if err := json.Unmarshal([]byte(line), &rec); err != nil {
			t.Fatal(err)
		}
		e, err := rec.Decode()
		if err != nil {
			t.Fatal(err)
		}
		s := e.(event.Stage)
		list = append(list, s.Name+" "+string(s.State))
	}
	return strings.Join(list, ", ")
}

func failing(times int) func(context.Context) (string, error) {
	return func(context.Context) (string, error) {
		if times--; times >= 0 {
			return "", errors.New("no carrier")
		}
		return "fine", nil
	}
}

func TestRunner(t *testing.T) {
	tests := []struct {
		name      string
		onFailure policy
		failures  int
		stops     bool
		want      string
	}{
		{"all well", stop, 0, false, "a started, a done, b started, b done"},
		{"stop", stop, 1, true, "a started, a stopped"},
		{"degrade", degrade, 1, false, "a started, a degraded, b started, b done"},
		{"retry", retry, 2, false, "a started, a retrying, a retrying, a done, b started, b done"},
		{"retry without success", retry, attempts, true, "a started, a retrying, a retrying, a retrying, a retrying, a stopped"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			err := newRunner(&out).run(t.Context(), []stage{
				{name: "a", onFailure: tt.onFailure, deadline: time.Minute, run: failing(tt.failures)},
				{name: "b", needs: []string{"a"}, onFailure: stop, deadline: time.Minute, run: failing(0)},
			})
			if errors.Is(err, errStopped) != tt.stops {
				t.Fatalf("run = %v, want stopped %v", err, tt.stops)
			}
			if tt.stops && !strings.Contains(err.Error(), "no carrier") {
				t.Errorf("%v does not say why", err)
			}
			if got := states(t, &out); got != tt.want {
				t.Errorf("events\n got %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestWhatIsRefusedIsNotTriedAgain(t *testing.T) {
	var out bytes.Buffer
	err := newRunner(&out).run(t.Context(), []stage{{name: "a", onFailure: retry, deadline: time.Minute, run: func(context.Context) (string, error) {
		return "", fmt.Errorf("%w: from elsewhere", errRefused)
	}}})
	if !errors.Is(err, errStopped) || !strings.Contains(err.Error(), "from elsewhere") {
		t.Errorf("run = %v", err)
	}
	if got, want := states(t, &out), "a started, a stopped"; got != want {
		t.Errorf("events\n got %s\nwant %s", got, want)
	}
}

func TestAnAttemptHasADeadline(t *testing.T) {
	var out bytes.Buffer
	err := newRunner(&out).run(t.Context(), []stage{{name: "a", onFailure: stop, deadline: time.Millisecond, run: func(ctx context.Context) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	}}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("run = %v", err)
	}
}

// done is a stage that does its work at once.
func done(context.Context) (string, error) { return "fine", nil }

// within runs the stages, and fails the test if they do not come to an end.
func within(t *testing.T, r *runner, stages ...stage) error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- r.run(t.Context(), stages) }()
	select {
	case err := <-ended:
		return err
	case <-time.After(time.Minute):
		t.Fatal("the boot hangs")
		return nil
	}
}

// Stages that need nothing of each other run at one time: each of these waits for the
// other to begin.
func TestStagesRunSideBySide(t *testing.T) {
	var out bytes.Buffer
	b, c := make(chan struct{}), make(chan struct{})
	meet := func(here, there chan struct{}) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			close(here)
			select {
			case <-there:
				return "met", nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}
	}
	if err := within(t, newRunner(&out),
		stage{name: "a", onFailure: stop, deadline: time.Minute, run: done},
		stage{name: "b", needs: []string{"a"}, onFailure: stop, deadline: time.Minute, run: meet(b, c)},
		stage{name: "c", needs: []string{"a"}, onFailure: stop, deadline: time.Minute, run: meet(c, b)},
		stage{name: "d", needs: []string{"b", "c"}, onFailure: stop, deadline: time.Minute, run: done},
	); err != nil {
		t.Fatal(err)
	}
	got := states(t, &out)
	if !strings.HasPrefix(got, "a started, a done, b started, c started, ") || !strings.HasSuffix(got, ", d started, d done") {
		t.Errorf("events: %s", got)
	}
}

// Only the first node begins a stage with less than the others need.
func TestFirstNodeNeedsLess(t *testing.T) {
	for _, first := range []bool{false, true} {
		var out bytes.Buffer
		r := newRunner(&out)
		r.first = func() bool { return first }
		after := make(chan struct{}) // b ends when c has ended, if that does not need b
		b := func(ctx context.Context) (string, error) {
			if first {
				<-after
			}
			return "", nil
		}
		c := func(context.Context) (string, error) { close(after); return "", nil }
		if err := within(t, r,
			stage{name: "a", onFailure: stop, deadline: time.Minute, run: done},
			stage{name: "b", needs: []string{"a"}, onFailure: stop, deadline: time.Minute, run: b},
			stage{name: "c", needs: []string{"b"}, onFirst: []string{"a"}, onFailure: stop, deadline: time.Minute, run: c},
		); err != nil {
			t.Fatal(err)
		}
		want := "a started, a done, b started, b done, c started, c done"
		if first {
			want = "a started, a done, b started, c started, c done, b done"
		}
		if got := states(t, &out); got != want && !first || first && !strings.HasPrefix(got, want[:len(want)-len("c done, b done")]) {
			t.Errorf("first node %v\n got %s\nwant %s", first, got, want)
		}
	}
}

// What a stage finds reaches those that need it; under the race detector this shows
// that no lock is needed for it, nor for the seconds that the last one reads.
func TestWhatAStageFindsReachesThoseThatNeedIt(t *testing.T) {
	stages := newNode().stages()
	for _, first := range []bool{false, true} {
		found := make([]int, len(stages)) // by place; no lock guards it
		place := make(map[string]int)
		for i := range stages {
			place[stages[i].name] = i
		}
		above := before(stages, first)
		var out bytes.Buffer
		r := newRunner(&out)
		r.first = func() bool { return first && found[place["medium"]] > 0 }
		for i := range stages {
			stages[i].run = func(context.Context) (string, error) {
				sum := 1
				for name := range above[stages[i].name] {
					if found[place[name]] == 0 {
						return "", fmt.Errorf("%s begins without %s", stages[i].name, name)
					}
					sum += found[place[name]]
				}
				if i == len(stages)-1 && len(r.took) != i {
					return "", fmt.Errorf("the seconds of %d stages are known to the last, want %d", len(r.took), i)
				}
				found[i] = sum
				return "", nil
			}
		}
		if err := within(t, r, stages...); err != nil {
			t.Error(err)
		}
		for name, state := range map[string]string{"medium": "done", "handover": "done"} {
			if !strings.Contains(states(t, &out), name+" "+state) {
				t.Errorf("%s is not %s, first node %v", name, state, first)
			}
		}
	}
}

// A stage that hangs ends at its deadline, and one that its deadline does not
// end is given up. What does not need it goes on meanwhile, what needs it afterwards.
func TestAStageThatHangsBesideOthers(t *testing.T) {
	for name, ends := range map[string]bool{"until its deadline": true, "for ever": false} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			r, reached := newRunner(&out), make(chan struct{})
			hangs := func(ctx context.Context) (string, error) {
				<-ctx.Done()
				<-reached // what does not need it has gone on
				return "", context.Cause(ctx)
			}
			if !ends {
				r.grace = time.Millisecond
				hangs = func(context.Context) (string, error) { select {} }
			}
			if err := within(t, r,
				stage{name: "a", onFailure: stop, deadline: time.Minute, run: done},
				stage{name: "hangs", needs: []string{"a"}, onFailure: degrade, deadline: time.Millisecond, run: hangs},
				stage{name: "b", needs: []string{"a"}, onFailure: stop, deadline: time.Minute, run: done},
				stage{name: "c", needs: []string{"b"}, onFailure: stop, deadline: time.Minute, run: func(context.Context) (string, error) {
					close(reached)
					return "", nil
				}},
				stage{name: "d", needs: []string{"c", "hangs"}, onFailure: stop, deadline: time.Minute, run: done},
			); err != nil {
				t.Fatal(err)
			}
			got := states(t, &out)
			if !strings.Contains(got, "hangs degraded") || !strings.Contains(got, "c done") || !strings.HasSuffix(got, ", d started, d done") {
				t.Errorf("events: %s", got)
			}
		})
	}
}

// Two attempts of one stage never run at a time: one that hangs is the last.
func TestAHangingStageIsNotTriedAgain(t *testing.T) {
	var out bytes.Buffer
	r := newRunner(&out)
	r.grace = time.Millisecond
	err := within(t, r, stage{name: "a", onFailure: retry, deadline: time.Millisecond, run: func(context.Context) (string, error) { select {} }})
	if !errors.Is(err, errHangs) || !errors.Is(err, errStopped) {
		t.Errorf("run = %v", err)
	}
	if got, want := states(t, &out), "a started, a stopped"; got != want {
		t.Errorf("events\n got %s\nwant %s", got, want)
	}
}

// What a stage finds counts until it is given up, also a little after its deadline.
func TestTooLate(t *testing.T) {
	for since, want := range map[time.Duration]bool{-time.Hour: false, time.Second: false, grace: true} {
		ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-since))
		if tooLate(ctx) != want {
			t.Errorf("%s after the deadline it is too late: %v, want %v", since, !want, want)
		}
		cancel()
	}
	if tooLate(t.Context()) {
		t.Error("it is too late though there is no deadline")
	}
}

// A failure that stops the boot cancels what runs beside it, also between two
// attempts, and waits for it. Nothing more begins, and one stage alone is reported
// as what stopped the boot.
func TestAStopCancelsTheOthers(t *testing.T) {
	var out bytes.Buffer
	r := newRunner(&out)
	r.pause = time.Hour
	running, cleaned := make(chan struct{}), false
	tried := make(chan struct{})
	err := within(t, r,
		stage{name: "a", onFailure: stop, deadline: time.Minute, run: done},
		stage{name: "fails", needs: []string{"a"}, onFailure: stop, deadline: time.Minute, run: func(context.Context) (string, error) {
			<-running
			<-tried
			return "", errors.New("no squashfs")
		}},
		stage{name: "works", needs: []string{"a"}, onFailure: stop, deadline: time.Minute, run: func(ctx context.Context) (string, error) {
			close(running)
			<-ctx.Done()
			cleaned = true
			return "", ctx.Err()
		}},
		stage{name: "pauses", needs: []string{"a"}, onFailure: retry, deadline: time.Minute, run: func(context.Context) (string, error) {
			close(tried)
			return "", errors.New("no carrier")
		}},
		stage{name: "later", needs: []string{"works"}, onFailure: stop, deadline: time.Minute, run: func(context.Context) (string, error) {
			t.Error("a stage begins though the boot has stopped")
			return "", nil
		}},
	)
	if !errors.Is(err, errStopped) || !strings.Contains(err.Error(), "boot stopped at fails: no squashfs") {
		t.Errorf("run = %v", err)
	}
	if !cleaned {
		t.Error("the rescue shell would begin before the stage beside has ended")
	}
	got := states(t, &out)
	if strings.Count(got, "stopped") != 1 || strings.Contains(got, "works stopped") || strings.Contains(got, "done, works") {
		t.Errorf("events: %s", got)
	}
}

// A stage that hangs and without which there is no boot leads to the rescue shell, though
// others work on: they are cancelled, and it is told what hangs. The clock is the test's.
func TestAHangThatStopsTheBootCancelsTheOthers(t *testing.T) {
	for _, onFailure := range []policy{stop, retry} {
		synctest.Test(t, func(t *testing.T) {
			var out bytes.Buffer
			r, never, cleaned := newRunner(&out), make(chan struct{}), false
			r.grace = grace
			began := time.Now()
			err := r.run(t.Context(), []stage{
				{name: "works", onFailure: degrade, deadline: time.Hour, run: func(ctx context.Context) (string, error) {
					<-ctx.Done()
					cleaned = true
					return "", ctx.Err()
				}},
				{name: "hangs", onFailure: onFailure, deadline: time.Minute, run: func(context.Context) (string, error) {
					<-never
					return "", nil
				}},
				{name: "later", needs: []string{"hangs"}, onFailure: stop, deadline: time.Minute, run: func(context.Context) (string, error) {
					t.Error("a stage begins without what it needs")
					return "", nil
				}},
			})
			if !errors.Is(err, errHangs) || !errors.Is(err, errStopped) || !strings.Contains(err.Error(), "boot stopped at hangs: it hangs") {
				t.Errorf("%s: run = %v", onFailure, err)
			}
			if took := time.Since(began); took != time.Minute+grace {
				t.Errorf("%s: the boot stops after %s", onFailure, took)
			}
			if !cleaned {
				t.Errorf("%s: the rescue shell would begin before the stage beside has ended", onFailure)
			}
			if got := states(t, &out); !strings.HasSuffix(got, ", hangs stopped") || strings.Contains(got, "retrying") {
				t.Errorf("%s: events: %s", onFailure, got)
			}
			close(never)
		})
	}
}

// A stage that nothing ends keeps nobody from the rescue shell.
func TestAStopDoesNotWaitForWhatHangs(t *testing.T) {
	var out bytes.Buffer
	r, hung := newRunner(&out), make(chan struct{})
	r.grace = time.Millisecond
	err := within(t, r,
		stage{name: "hangs", onFailure: retry, deadline: time.Hour, run: func(context.Context) (string, error) {
			close(hung)
			select {}
		}},
		stage{name: "fails", onFailure: stop, deadline: time.Minute, run: func(context.Context) (string, error) {
			<-hung
			return "", errors.New("no squashfs")
		}},
	)
	if !errors.Is(err, errStopped) || !strings.Contains(err.Error(), "boot stopped at fails: no squashfs") {
		t.Errorf("run = %v", err)
	}
}
