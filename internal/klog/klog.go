// Package klog writes structured log lines to the kernel log.
//
// Before the root exists the kernel log is the only place that every console
// shows and every distribution keeps (dmesg, the journal). The package formats
// one slog record as one line of /dev/kmsg (kernel document ABI/testing/dev-kmsg)
// and bounds how often one message is written; it does nothing else. The
// invariant: one record is one write or none, because each write to /dev/kmsg is
// a line of its own.
package klog

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Device is the kernel log's device node.
const Device = "/dev/kmsg"

// New returns a logger whose lines begin with the program's name. Lines are
// bounded to what the kernel takes in one record, and in number: see Limit.
func New(w io.Writer, program string) *slog.Logger {
	line := &lineWriter{w: w, program: program}
	text := slog.NewTextHandler(line, &slog.HandlerOptions{
		Level: slog.LevelDebug,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			// The kernel stamps the time and the priority says the level.
			if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
				return slog.Attr{}
			}
			return a
		},
	})
	return slog.New(Limit(&handler{text: text, line: line}))
}

// Open opens the kernel log for writing. On a machine that has none, lines go
// to standard error.
func Open() io.Writer {
	f, err := os.OpenFile(Device, os.O_WRONLY, 0)
	if err != nil {
		return os.Stderr
	}
	return f
}

// Uptime returns the time since the kernel started, which is also the clock of
// the kernel log.
func Uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // a Linux without this clock is older than 2.6.39
	}
	return time.Duration(ts.Nano())
}

// handler sets the priority of the line that the text handler writes next. It
// holds line's lock across both, as slog calls handlers concurrently.
type handler struct {
	text slog.Handler
	line *lineWriter
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (h *handler) Handle(ctx context.Context, r slog.Record) error {
	h.line.mu.Lock()
	defer h.line.mu.Unlock()
	h.line.priority = priority(r.Level)
	return h.text.Handle(ctx, r)
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{text: h.text.WithAttrs(attrs), line: h.line}
}

func (h *handler) WithGroup(name string) slog.Handler {
	return &handler{text: h.text.WithGroup(name), line: h.line}
}

// priority maps a level to a syslog priority (RFC 5424, section 6.2.1). Info
// becomes "notice", which consoles still show at their default level.
func priority(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return 3
	case l >= slog.LevelWarn:
		return 4
	case l >= slog.LevelInfo:
		return 5
	}
	return 7
}

func appendPrefix(b []byte, priority int, program string) []byte {
	b = append(b, '<')
	b = strconv.AppendInt(b, int64(priority), 10)
	b = append(b, '>')
	b = append(b, program...)
	return append(b, ": "...)
}
