package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// progress shows how far a command is: a bar with rate and time left on a
// terminal, now and then a line elsewhere.
type progress struct {
	w     io.Writer
	isTTY bool
	task  string
	bar   *progressbar.ProgressBar
	tenth int64
	last  time.Time // when a line was printed
}

func newProgress(w io.Writer) *progress {
	return &progress{w: w, isTTY: isTerminal(w)}
}

// show tells how far a task has come, in bytes; total is 0 when it is not known.
func (p *progress) show(task string, done, total int64) {
	if task != p.task {
		p.end()
		p.task, p.tenth, p.last = task, 0, time.Now()
		if p.isTTY && total > 0 {
			p.bar = newBar(p.w, task, total)
		} else {
			fmt.Fprintf(p.w, "%s\n", task)
		}
	}
	if p.bar != nil {
		_ = p.bar.Set64(done) // a bar that cannot be drawn is no reason to stop
		return
	}
	if total > 0 && done*10/total > p.tenth && time.Since(p.last) > time.Second {
		p.tenth, p.last = done*10/total, time.Now()
		fmt.Fprintf(p.w, "%s: %d %% of %d MiB\n", task, p.tenth*10, total>>20)
	}
}

// end finishes the line of the task that is shown.
func (p *progress) end() {
	if p.bar != nil {
		_ = p.bar.Exit()
		fmt.Fprintln(p.w)
		p.bar = nil
	}
	p.task = ""
}

func newBar(w io.Writer, task string, total int64) *progressbar.ProgressBar {
	return progressbar.NewOptions64(total,
		progressbar.OptionSetWriter(w),
		progressbar.OptionSetDescription(fmt.Sprintf("%-18s", task)),
		progressbar.OptionShowBytes(true),
		progressbar.OptionSetWidth(24),
		progressbar.OptionThrottle(100*time.Millisecond),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionSetRenderBlankState(true),
	)
}

// canAsk reports whether there is somebody to ask: a terminal to read from, and one to write to.
func canAsk(env environment) bool { return isTerminal(env.stdin) && isTerminal(env.stderr) }

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
