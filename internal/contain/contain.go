// Package contain keeps a panic where it happened.
//
// What strangers send is handled by code that may have a fault nobody has found
// yet. At the boundary of each connection and each packet a panic ends what is
// being handled and nothing else: the process is a machine's root disk. It is
// not for the core behind such a boundary to recover by itself.
//
// A boundary must not leave a lock behind: what is called inside it releases its
// locks by defer. The state that such a lock guards may then be half changed,
// which is the price; the connection that caused it is gone.
//
// The invariant: each panic is counted, and each place that panics is logged
// once, with its stack.
package contain

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
)

// Error is a panic that was contained.
type Error struct {
	// What was being handled: "nbd client".
	What string
	// Value is what panic was called with.
	Value any
}

// Error says what was handled, and the panic's value.
func (e *Error) Error() string { return fmt.Sprintf("%s: panic: %v", e.What, e.Value) }

// Call runs f. A panic in it is logged and becomes an *Error.
func Call(log *slog.Logger, what string, f func() error) (err error) {
	defer Recover(log, what, func(e error) { err = e })
	return f()
}

// Do runs f. A panic in it is logged.
func Do(log *slog.Logger, what string, f func()) {
	defer Recover(log, what, nil)
	f()
}

// Recover is deferred at a boundary. It logs a panic and hands it to then, which
// may be nil.
func Recover(log *slog.Logger, what string, then func(error)) {
	value := recover()
	switch value {
	case nil:
		return
	case http.ErrAbortHandler: // net/http's own word for the end of a connection
		panic(value)
	}
	at, stack := trace()
	log.LogAttrs(context.Background(), slog.LevelError, message,
		slog.String("while", what), slog.Any("error", fmt.Errorf("%v", value)), slog.String(placeKey, at), slog.String("stack", stack))
	if then != nil {
		then(&Error{What: what, Value: value})
	}
}

const (
	message  = "a fault of this program was contained; please report it"
	placeKey = "at"
	// maxStack bounds a stack in the log, in bytes: the kernel takes a record of
	// about a thousand, and the innermost calls tell the most.
	maxStack = 600
)

// trace returns the place that panicked and the calls that led there, innermost
// first. It is called by the deferred function itself.
func trace() (at, stack string) {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	var calls []string
	for {
		f, more := frames.Next()
		if !strings.HasPrefix(f.Function, "runtime.") { // panic itself, and what the processor raised
			calls = append(calls, fmt.Sprintf("%s %s:%d", path.Base(f.Function), path.Base(f.File), f.Line))
		}
		if !more {
			break
		}
	}
	if len(calls) == 0 {
		return "unknown", ""
	}
	stack = strings.Join(calls, " < ")
	return calls[0], stack[:min(len(stack), maxStack)]
}

// maxPlaces bounds how many places are remembered.
const maxPlaces = 256

// Counter counts the panics that are logged through it. A place that has been
// logged is only counted from then on, since whoever found it can do it again a
// thousand times a second. The zero value is ready.
type Counter struct {
	total atomic.Uint64

	mu     sync.Mutex
	logged map[string]bool // places
}

// Total is how many panics there were.
func (c *Counter) Total() uint64 { return c.total.Load() }

// Watch returns a logger that tells the counter.
func (c *Counter) Watch(log *slog.Logger) *slog.Logger {
	return slog.New(&handler{Handler: log.Handler(), counter: c})
}

// first tells whether a place has not been logged.
func (c *Counter) first(place string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.logged[place] || len(c.logged) >= maxPlaces {
		return false
	}
	if c.logged == nil {
		c.logged = map[string]bool{}
	}
	c.logged[place] = true
	return true
}

// handler passes on everything but panics that are known.
type handler struct {
	slog.Handler
	counter *Counter
}

// Enabled implements slog.Handler: panics are counted also when nobody reads
// the log.
func (h *handler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelError || h.Handler.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	if r.Message != message {
		return h.pass(ctx, r)
	}
	h.counter.total.Add(1)
	place := ""
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == placeKey {
			place = a.Value.String()
		}
		return place == ""
	})
	if !h.counter.first(place) {
		return nil
	}
	return h.pass(ctx, r)
}

func (h *handler) pass(ctx context.Context, r slog.Record) error {
	if !h.Handler.Enabled(ctx, r.Level) {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{Handler: h.Handler.WithAttrs(attrs), counter: h.counter}
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{Handler: h.Handler.WithGroup(name), counter: h.counter}
}
