package bootbench

import (
	"fmt"
	"io"
	"sync"
	"time"

	"viver.lan/internal/sleep"
)

// progress shows what is going on: on a terminal as a line that changes,
// elsewhere as lines.
type progress struct {
	out      io.Writer
	terminal bool

	mu    sync.Mutex // guards what follows, and writing
	what  string
	state string
	since time.Time
}

// begin names what is measured from now on.
func (p *progress) begin(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.what, p.state, p.since = what, "", time.Now()
	if !p.terminal {
		fmt.Fprintf(p.out, "%s\n", what)
	}
}

// report tells what is done now.
func (p *progress) report(state string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = state
}

// step is a line of what has happened.
func (p *progress) step(format string, args ...any) { p.print(fmt.Sprintf("  "+format+"\n", args...)) }

// line shows a row.
func (p *progress) line(r Row) { p.print(terminalLine(r)) }

func (p *progress) print(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal {
		fmt.Fprint(p.out, "\r\033[K")
	}
	fmt.Fprint(p.out, text)
}

// run draws the changing line until it is stopped.
func (p *progress) run() (stop func()) {
	if !p.terminal {
		return func() {}
	}
	end := sleep.Every(500*time.Millisecond, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		fmt.Fprintf(p.out, "\r\033[K%-26s %5.0f s  %.50s", p.what, time.Since(p.since).Seconds(), p.state)
	})
	return func() {
		end()
		p.print("")
	}
}
