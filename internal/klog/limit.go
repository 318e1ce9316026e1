package klog

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// How often one message is written. What a stranger can cause again and again
// costs a bounded rate of lines, whatever it sends: maxBurst at once, then one in
// refill. Messages are told apart by their level and text, not by their
// attributes, which a stranger may choose. Those beyond maxMessages, a text that
// somebody put values into for example, share one bound.
const (
	maxBurst    = 100
	refill      = 5 * time.Second
	maxMessages = 512
)

// leftOut is the attribute that says how many lines of a message were not
// written since the last one that was.
const leftOut = "left_out"

// Limit returns a handler that writes each message to h at a bounded rate. The
// first line after a pause says how many are missing.
func Limit(h slog.Handler) slog.Handler {
	return &limited{Handler: h, counts: &counts{now: time.Now, of: make(map[message]*bucket)}}
}

// limited is a handler with a bound; those made from it share the bound.
type limited struct {
	slog.Handler
	counts *counts
}

// Handle implements slog.Handler.
func (l *limited) Handle(ctx context.Context, r slog.Record) error {
	missing, ok := l.counts.take(message{r.Level, r.Message})
	if !ok {
		return nil
	}
	if missing > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int(leftOut, missing))
	}
	return l.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (l *limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &limited{Handler: l.Handler.WithAttrs(attrs), counts: l.counts}
}

// WithGroup implements slog.Handler.
func (l *limited) WithGroup(name string) slog.Handler {
	return &limited{Handler: l.Handler.WithGroup(name), counts: l.counts}
}

// message is what tells one kind of line from another.
type message struct {
	level slog.Level
	text  string
}

// bucket is what one message may still write: it fills by a line per refill.
type bucket struct {
	lines   int
	since   time.Time // when the last line was added
	missing int
}

// counts are the buckets of all messages.
type counts struct {
	now func() time.Time

	mu sync.Mutex
	of map[message]*bucket
}

// take asks for a line; missing is how many were refused since the last one.
func (c *counts) take(m message) (missing int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	b := c.bucket(m, now)
	if b.lines == 0 {
		b.missing++
		return 0, false
	}
	b.lines--
	missing, b.missing = b.missing, 0
	return missing, true
}

// bucket returns a message's bucket, filled up to now.
func (c *counts) bucket(m message, now time.Time) *bucket {
	b := c.of[m]
	if b == nil && len(c.of) >= maxMessages {
		c.dropFull(now)
	}
	if b == nil && len(c.of) >= maxMessages {
		m = message{} // the one of all that have none
		b = c.of[m]
	}
	if b == nil {
		b = &bucket{lines: maxBurst, since: now}
		c.of[m] = b
	}
	b.fill(now)
	return b
}

// dropFull forgets the messages of which nothing is known that a new bucket
// would not say as well.
func (c *counts) dropFull(now time.Time) {
	for m, b := range c.of {
		if b.fill(now); b.lines == maxBurst && b.missing == 0 {
			delete(c.of, m)
		}
	}
}

func (b *bucket) fill(now time.Time) {
	n := int(min(now.Sub(b.since)/refill, maxBurst))
	b.since = b.since.Add(time.Duration(n) * refill)
	if b.lines += n; b.lines >= maxBurst {
		b.lines, b.since = maxBurst, now
	}
}
