package show

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"viver.lan/internal/event"
	"viver.lan/qemu-tests/harness"
)

// Board is the live picture of a network: on a terminal one line for each
// machine, drawn again in place; elsewhere a line for each thing that happens.
type Board struct {
	out   io.Writer
	width func() int // of the terminal; nil: not a terminal

	mu       sync.Mutex
	machines []*Machine
	pending  []string  // plain lines to print
	printed  time.Time // when the last plain line was
	drawn    int       // lines on the terminal that belong to the board
	picture  string    // and what they say
	changed  chan struct{}
}

// NewBoard returns an empty board that is drawn on out.
func NewBoard(out io.Writer) *Board {
	b := &Board{out: out, printed: time.Now(), changed: make(chan struct{})}
	if f, ok := out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		b.width = func() int {
			w, _, err := term.GetSize(int(f.Fd()))
			if err != nil || w < 20 {
				return 80
			}
			return w
		}
	}
	return b
}

// Add puts a machine on the board. It is the board's from here on.
func (b *Board) Add(m *Machine) {
	b.update(m.Name, func(*Machine) {})
	b.mu.Lock()
	defer b.mu.Unlock()
	b.machines = append(b.machines, m)
}

// Say prints a line for people, above the machines.
func (b *Board) Say(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.pending = append(b.pending, fmt.Sprintf(format, args...))
}

// Take is the lab's OnRecord.
func (b *Board) Take(name string, rec harness.Record) {
	b.update(name, func(m *Machine) {
		m.Take(rec)
		s, ok := harness.As[event.Stage](rec.Record)
		if !ok || b.width != nil {
			return
		}
		line := fmt.Sprintf("%-7s %6.1f s  %s %s", m.Name, rec.At.Sub(m.PowerOn).Seconds(), s.Name, s.State)
		if s.Detail != "" {
			line += ": " + s.Detail
		}
		b.pending = append(b.pending, line)
	})
}

// update changes a machine and wakes whoever waits for a change.
func (b *Board) update(name string, change func(*Machine)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.machines {
		if m.Name == name {
			change(m)
		}
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

// Machines are copies of the machines as they are now.
func (b *Board) Machines() []Machine {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []Machine
	for _, m := range b.machines {
		c := *m
		c.Stages = append([]Stage(nil), m.Stages...)
		c.Serving = map[string]bool{}
		for k, v := range m.Serving {
			c.Serving[k] = v
		}
		all = append(all, c)
	}
	return all
}

// Wait waits until a machine is as wanted, and fails when it stopped.
func (b *Board) Wait(ctx context.Context, name string, ok func(*Machine) bool) error {
	for {
		b.mu.Lock()
		changed := b.changed
		var met bool
		var stopped string
		for _, m := range b.machines {
			if m.Name == name {
				met, stopped = ok(m), m.Stopped
			}
		}
		b.mu.Unlock()
		if met {
			return nil
		}
		if stopped != "" {
			return fmt.Errorf("%s: %s", name, stopped)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Run draws until ctx ends, and then once more.
func (b *Board) Run(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		b.draw(time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.draw(time.Now())
			return
		}
	}
}

func (b *Board) draw(now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var lines, picture strings.Builder
	if len(b.pending) == 0 {
		b.pending = b.progress(now)
	}
	for _, line := range b.pending {
		b.line(&lines, line)
		b.printed = now
	}
	b.pending = nil
	if b.width != nil {
		for _, m := range b.machines {
			b.line(&picture, clip(m.Line(now), b.width()-1))
		}
	}
	if lines.Len() == 0 && picture.String() == b.picture {
		return
	}
	up := ""
	if b.drawn > 0 {
		up = fmt.Sprintf("\x1b[%dA", b.drawn) // to the first line of the board
	}
	b.picture = picture.String()
	b.drawn = strings.Count(b.picture, "\n")
	_, _ = io.WriteString(b.out, up+lines.String()+b.picture) // nobody left to tell
}

// progressInterval is how long a board without terminal prints nothing while
// something is waited for.
const progressInterval = 15 * time.Second

// progress says who is where, when that has not been said for a while.
func (b *Board) progress(now time.Time) []string {
	if b.width != nil || now.Sub(b.printed) < progressInterval {
		return nil
	}
	var lines []string
	for _, m := range b.machines {
		if m.busy() && !m.PowerOn.IsZero() {
			lines = append(lines, fmt.Sprintf("%-7s %6.1f s  … %s", m.Name, now.Sub(m.PowerOn).Seconds(), m.Status()))
		}
	}
	return lines
}

func (b *Board) line(s *strings.Builder, text string) {
	s.WriteString(text)
	if b.width != nil {
		s.WriteString("\x1b[K") // what the line before was longer
	}
	s.WriteByte('\n')
}

// clip cuts a line that would wrap and so spoil the picture.
func clip(line string, width int) string {
	r := []rune(strings.ReplaceAll(line, "\n", " "))
	if len(r) <= width {
		return string(r)
	}
	return string(r[:width-1]) + "…"
}
