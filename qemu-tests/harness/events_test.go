package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/event"
)

// guest writes events as a program in a guest does.
func guest(t *testing.T, l *eventLog) (*event.Log, func()) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.read(r)
	}()
	log := event.NewLog("uinit", func() time.Duration { return 1500 * time.Millisecond }, w)
	return log, func() {
		w.Close()
		<-done
		r.Close()
	}
}

func newLog(t *testing.T) (*eventLog, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "events.jsonl")
	l, err := newEventLog(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l, path
}

func stageIs(name string, state event.State) func(event.Record) bool {
	return func(rec event.Record) bool {
		s, ok := As[event.Stage](rec)
		return ok && s.Name == name && s.State == state
	}
}

func TestWaitSeesWhatCameBeforeAndAfter(t *testing.T) {
	l, path := newLog(t)
	log, hangup := guest(t, l)
	log.Emit(event.Stage{Name: "network", State: event.Done})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// Two waits for the same event both get it, the second one long after.
	for range 2 {
		rec, err := l.wait(ctx, stageIs("network", event.Done))
		if err != nil || rec.Uptime != 1.5 || rec.At.IsZero() {
			t.Fatalf("got %+v, %v", rec, err)
		}
	}
	later := make(chan error)
	go func() {
		_, err := l.wait(ctx, func(rec event.Record) bool { return rec.Kind == "node" })
		later <- err
	}()
	log.Emit(event.Node{Hostname: "node-1"})
	if err := <-later; err != nil {
		t.Fatal(err)
	}
	hangup()
	l.end()
	if _, err := l.wait(ctx, func(event.Record) bool { return false }); !errors.Is(err, errMachineOff) {
		t.Errorf("wait on a machine that is off: %v", err)
	}
	saved, err := os.ReadFile(path)
	if err != nil || strings.Count(string(saved), "\n") != 2 || !strings.Contains(string(saved), `"hostname":"node-1"`) {
		t.Errorf("the file has %q (%v)", saved, err)
	}
}

func TestWaitEndsWithTheGuestsOwnSentence(t *testing.T) {
	l, _ := newLog(t)
	log, hangup := guest(t, l)
	defer hangup()
	log.Emit(event.Stage{Name: "root", State: event.Stopped, Detail: "no squashfs in this kernel"})
	var stop *StoppedError
	_, err := l.wait(t.Context(), stageIs("handover", event.Started))
	if !errors.As(err, &stop) || stop.Stage.Name != "root" || !strings.Contains(err.Error(), "no squashfs in this kernel") {
		t.Errorf("error %v", err)
	}
	// Who waits for exactly that is served.
	if _, err := l.wait(t.Context(), stageIs("root", event.Stopped)); err != nil {
		t.Errorf("waiting for the stop itself: %v", err)
	}
	// The next boot does not know about it.
	l.forget()
	log.Emit(event.Stage{Name: "handover", State: event.Started})
	if _, err := l.wait(t.Context(), stageIs("handover", event.Started)); err != nil {
		t.Errorf("after a reset: %v", err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errWaited)
	defer cancel()
	if _, err := l.wait(ctx, stageIs("root", event.Stopped)); !errors.Is(err, errWaited) {
		t.Errorf("the stop before the reset is still seen: %v", err)
	}
	if got := l.last(); !strings.Contains(got, "handover") || !strings.Contains(got, "uinit at 1.5 s") {
		t.Errorf("last event told as %q", got)
	}
}

func TestParseRecord(t *testing.T) {
	const whole = `{"uptime":2,"program":"uinit","kind":"stage","data":{"name":"root","state":"done"}}`
	for _, test := range []struct {
		line string
		ok   bool
	}{
		{whole, true},
		{`{"uptime":1,"program":"uinit","kind":"sta` + whole, true}, // a reset in the middle of a line
		{`{"uptime":1,{"uptime":1,` + whole, true},
		{"", false},
		{"{}", false},
		{`{"uptime"`, false},
		{"login: ", false},
	} {
		rec, ok := parseRecord([]byte(test.line))
		if ok != test.ok || ok && rec.Uptime != 2 {
			t.Errorf("%q: %+v, %v", test.line, rec, ok)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"uptime":1,"program":"uinit","kind":"sta{"uptime":2,"kind":"stage","data":{}}`))
	f.Add([]byte(`{"uptime"{"uptime"{"uptime"`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if rec, ok := parseRecord(line); ok && rec.Kind == "" {
			t.Error("a record without kind")
		}
	})
}

// A line that is no event is counted and harms nothing.
func TestGarbageBetweenEvents(t *testing.T) {
	l, _ := newLog(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		fmt.Fprint(w, "hello\n\n{\"uptime\":1,\"program\":\"x\",\"kind\":\"member\",\"data\":{\"name\":\"b\",\"joined\":true}}\n")
		w.Close()
	}()
	l.read(r)
	if n := len(l.all()); n != 1 || l.garbage != 1 {
		t.Errorf("%d events and %d lines of garbage, want 1 and 1", n, l.garbage)
	}
}
