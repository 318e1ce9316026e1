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
	"time"

	"viver.lan/internal/event"
)

func newRunner(out *bytes.Buffer) *runner {
	events := event.NewLog("uinit", func() time.Duration { return 0 }, out)
	return &runner{log: slog.New(slog.DiscardHandler), events: events, took: map[string]float64{}}
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
				{name: "b", onFailure: stop, deadline: time.Minute, run: failing(0)},
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
