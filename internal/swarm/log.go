package swarm

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"viver.lan/internal/contain"
)

// queuedLog is the log for who must not wait for it, as the owner: a serial console is
// slow, and a terminal may be stopped. Lines wait for one goroutine that writes them.
type queuedLog struct {
	slog.Handler // who writes them in the end
	queue        *logQueue
}

// logQueue are the lines that are still to be written. Where there is no room, new
// ones are lost, and the log says how many.
type logQueue struct {
	lines   chan logLine
	lost    atomic.Int64
	written chan struct{} // closed when all is written, after the end
}

type logLine struct {
	to     slog.Handler
	record slog.Record
}

const (
	// maxLines is how many lines wait at most; as many come when a large network
	// is joined.
	maxLines = 1024
	// logPatience is how long the end waits for a log that takes nothing.
	logPatience = time.Second
)

// newQueuedLog returns a log that writes to another one until it is ended.
func newQueuedLog(to *slog.Logger) *queuedLog {
	q := &logQueue{lines: make(chan logLine, maxLines), written: make(chan struct{})}
	go q.write(to)
	return &queuedLog{to.Handler(), q}
}

// Handle implements slog.Handler. It waits for nothing.
func (l *queuedLog) Handle(_ context.Context, r slog.Record) error {
	select {
	case l.queue.lines <- logLine{l.Handler, r.Clone()}:
	default:
		l.queue.lost.Add(1)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (l *queuedLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &queuedLog{l.Handler.WithAttrs(attrs), l.queue}
}

// WithGroup implements slog.Handler.
func (l *queuedLog) WithGroup(name string) slog.Handler {
	return &queuedLog{l.Handler.WithGroup(name), l.queue}
}

// end has the rest written. Nothing may be logged any more.
func (l *queuedLog) end() {
	close(l.queue.lines)
	select {
	case <-l.queue.written:
	case <-time.After(logPatience):
	}
}

// write writes lines until the end. If the log hangs for ever, it has this goroutine
// for ever.
func (q *logQueue) write(to *slog.Logger) {
	defer close(q.written)
	for line := range q.lines {
		contain.Do(to, "the log", func() {
			_ = line.to.Handle(context.Background(), line.record) // a log that fails stops nobody
			if lost := q.lost.Swap(0); lost > 0 {
				to.Warn("the log is too slow, lines are lost", "lines", lost)
			}
		})
	}
}
