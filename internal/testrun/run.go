package testrun

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"
)

// ErrFailed is returned when go test ran and something failed, or nothing did
// what it was asked for.
var ErrFailed = errors.New("tests failed")

// Run runs go test on a selection in the directory root, with more in its
// environment, and lets the report follow. errs takes what the go command prints
// beside its events. When ctx ends go test is interrupted, and ends its tests.
func Run(ctx context.Context, root string, s Selection, env []string, r *Report, errs io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-json", "-count=1"}, s.Args...)...)
	cmd.Dir, cmd.Env, cmd.Stderr = root, append(os.Environ(), env...), errs
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	events, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	followed := r.Follow(events, cancel)
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case followed != nil:
		return fmt.Errorf("follow go test: %w", followed)
	case errors.As(err, &exit), err == nil && r.Failed() > 0:
		return ErrFailed
	}
	return err
}
