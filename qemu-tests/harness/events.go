package harness

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"viver.lan/internal/event"
)

// Record is an event of a guest and when it arrived here.
type Record struct {
	event.Record
	// At is the host's time, comparable between machines.
	At time.Time `json:"at"`
}

// Kernel is when the guest's kernel began to count, by this event. What was sent
// before the guest had opened its port came late, so the earliest of a boot's
// answers is the right one.
func (r Record) Kernel() time.Time {
	return r.At.Add(-time.Duration(r.Uptime * float64(time.Second)))
}

// StoppedError says that the guest gave up a stage of its boot.
type StoppedError struct{ Stage event.Stage }

// Error repeats the guest's own sentence.
func (e *StoppedError) Error() string {
	return fmt.Sprintf("the guest stopped in stage %q: %s", e.Stage.Name, e.Stage.Detail)
}

// maxEventLine bounds one line from a guest, in bytes.
const maxEventLine = 1 << 20

// eventLog gathers the events of one machine from all its ports.
type eventLog struct {
	file     *os.File
	onRecord func(Record) // may be nil; must not wait

	mu      sync.Mutex
	records []Record
	mark    int           // where waits begin to look
	booted  int           // where this boot begins
	changed chan struct{} // closed and replaced at every change
	garbage int           // lines that were no event
	lively  uint64        // records that show that something goes on
	ended   bool
}

func newEventLog(path string, onRecord func(Record)) (*eventLog, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("event log: %w", err)
	}
	return &eventLog{file: f, onRecord: onRecord, changed: make(chan struct{})}, nil
}

// read takes events from one port until QEMU is gone.
func (l *eventLog) read(port io.Reader) {
	lines := bufio.NewScanner(port)
	lines.Buffer(make([]byte, 0, 64<<10), maxEventLine)
	for lines.Scan() {
		if rec, ok := parseRecord(lines.Bytes()); ok {
			l.add(Record{Record: rec, At: time.Now()})
		} else if len(bytes.TrimSpace(lines.Bytes())) > 0 {
			l.mu.Lock()
			l.garbage++
			l.mu.Unlock()
		}
	}
	// Nobody may be left writing into a port that is not read.
	_, _ = io.Copy(io.Discard, port)
}

// parseRecord reads a line. A guest that was reset in the middle of a line
// leaves its beginning in front of the next boot's first event.
func parseRecord(line []byte) (event.Record, bool) {
	for at := 0; ; {
		var rec event.Record
		if json.Unmarshal(line[at:], &rec) == nil && rec.Kind != "" {
			// The scanner's buffer is used again.
			rec.Data = bytes.Clone(rec.Data)
			return rec, true
		}
		next := bytes.Index(line[at+min(1, len(line)-at):], []byte(`{"uptime"`))
		if next < 0 {
			return event.Record{}, false
		}
		at += 1 + next
	}
}

func (l *eventLog) add(rec Record) {
	if line, err := json.Marshal(rec); err == nil {
		_, _ = l.file.Write(append(line, '\n')) // for people; the test goes on
	}
	l.mu.Lock()
	l.records = append(l.records, rec)
	if isSign(rec.Record) {
		l.lively++
	}
	l.notify()
	l.mu.Unlock()
	if l.onRecord != nil {
		l.onRecord(rec)
	}
}

// notify wakes all waits; the caller holds mu.
func (l *eventLog) notify() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// forget lets later waits see only events that come from now on.
func (l *eventLog) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mark = len(l.records)
}

// signs counts the events that show that something goes on.
func (l *eventLog) signs() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lively
}

// fresh tells whether this boot has sent an event.
func (l *eventLog) fresh() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.records) > l.booted
}

// reset begins another boot.
func (l *eventLog) reset() {
	l.forget()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.booted = len(l.records)
}

func (l *eventLog) end() {
	l.mu.Lock()
	l.ended = true
	l.notify()
	l.mu.Unlock()
	_ = l.file.Close()
}

func (l *eventLog) all() []Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Record(nil), l.records...)
}

// wait returns the first event since the mark that matches. A stage that
// stopped ends it, unless that is what was waited for.
func (l *eventLog) wait(ctx context.Context, match func(event.Record) bool) (Record, error) {
	next := -1
	for {
		l.mu.Lock()
		if next < l.mark {
			next = l.mark // also when a reset moved it meanwhile
		}
		fresh := l.records[next:]
		changed, ended := l.changed, l.ended
		l.mu.Unlock()
		for _, rec := range fresh {
			if match(rec.Record) {
				return rec, nil
			}
			if err := stopped(rec.Record); err != nil {
				return rec, err
			}
		}
		next += len(fresh)
		if ended {
			return Record{}, errMachineOff
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Record{}, context.Cause(ctx)
		}
	}
}

func stopped(rec event.Record) error {
	if e, err := rec.Decode(); err == nil {
		if s, ok := e.(event.Stage); ok && s.State == event.Stopped {
			return &StoppedError{Stage: s}
		}
	}
	return nil
}

// last describes the newest event for a message.
func (l *eventLog) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := "no event ever arrived"
	if n := len(l.records); n > 0 {
		r := l.records[n-1]
		text = fmt.Sprintf("the last event of %d came from %s at %.1f s: %s %s", n, r.Program, r.Uptime, r.Kind, r.Data)
	}
	if l.garbage > 0 {
		text += fmt.Sprintf(" (%d lines were no events)", l.garbage)
	}
	return text
}
