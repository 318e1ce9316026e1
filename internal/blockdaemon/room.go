package blockdaemon

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"time"

	"viver.lan/internal/booted"
	"viver.lan/internal/control"
	"viver.lan/internal/sleep"
)

const (
	// lookEvery is the time between two looks at the place for written files. The kernel
	// wakes nobody when one fills.
	lookEvery = 10 * time.Second
	// wallTime is what wall(1) may take: a terminal that is stopped takes nothing.
	wallTime = 10 * time.Second
	// relief is how many per cent the place has to fall below a step before that is
	// warned of again.
	relief = 5
	// filling and almostFull are the shares of the place, in per cent, that are warned of.
	filling, almostFull = 80, 95
)

// roomWatch warns people before the place for the files that are written to the root is
// full, when programs stop with errors of which few name the reason.
type roomWatch struct {
	look func() *control.Written
	wall func(ctx context.Context, text string) error // tells who is logged in
	log  *slog.Logger

	warned int // the step of the last warning that still holds, 0 for none
}

// run looks until ctx ends.
func (r *roomWatch) run(ctx context.Context) error {
	for {
		if w := r.look(); w != nil {
			r.judge(ctx, w)
		}
		if sleep.For(ctx, lookEvery) != nil {
			return nil
		}
	}
}

// judge warns when a step is reached.
func (r *roomWatch) judge(ctx context.Context, w *control.Written) {
	used, of := w.Used()
	reached := 0
	for _, step := range []int{almostFull, filling} {
		if used >= step || r.warned >= step && used > step-relief {
			reached = step
			break
		}
	}
	if reached <= r.warned {
		r.warned = reached
		return
	}
	r.warned = reached
	level := slog.LevelWarn
	if reached == almostFull {
		level = slog.LevelError // so that the console has it, also with the kernel's option quiet
	}
	r.log.Log(ctx, level, "the place for written files fills; viver doctor files names the largest", "used", fmt.Sprintf("%d%%", used), "of", of)
	text := fmt.Sprintf("This machine has used %d %% of the %s for the files that are written to it.\nWhen all is used, programs fail with \"No space left on device\".\n\"viver doctor files\" names the largest; delete what is not needed.\n", used, of)
	if err := r.wall(ctx, text); err != nil {
		r.log.Warn("who is logged in was not told", "error", err)
	}
}

// wall has the wall(1) of the booted system tell who is logged in. A system without one
// has the kernel's log.
func wall(ctx context.Context, text string) error {
	system := booted.System{Process: "/proc/1"}
	for _, program := range []string{"/usr/bin/wall", "/bin/wall"} {
		if !system.Has(program) {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, wallTime)
		defer cancel()
		cmd := exec.CommandContext(ctx, program)
		cmd.Stdin, cmd.WaitDelay = strings.NewReader(text), time.Second
		if err := system.Start(cmd, ""); err != nil {
			return err
		}
		return cmd.Wait()
	}
	return nil
}
