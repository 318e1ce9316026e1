package imagebuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
)

// feed writes what fill writes to the standard input of cmd, which runs, and
// waits for its end. name and said, what cmd says, go into the error.
func feed(ctx context.Context, cmd *exec.Cmd, stdin io.WriteCloser, said *bytes.Buffer, name string, fill func(io.Writer) error) error {
	filled := fill(stdin)
	if filled != nil {
		// What ends early would look whole to the program: end it first.
		_ = cmd.Process.Kill()
	}
	_ = stdin.Close() // its reader's exit status says more
	exited := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case filled != nil && !errors.Is(filled, syscall.EPIPE):
		return filled
	case exited == nil && filled != nil:
		return fmt.Errorf("%s ended before it had read all: %w: %s", name, filled, lastLines(said.String(), 3))
	case exited != nil:
		return fmt.Errorf("%s: %w: %s", name, errors.Join(exited, spaceLeft(said.String())), lastLines(said.String(), 3))
	}
	return nil
}

// spaceLeft recognises a full disk in what a program said.
func spaceLeft(said string) error {
	if strings.Contains(said, syscall.ENOSPC.Error()) || strings.Contains(said, "No space left") {
		return syscall.ENOSPC
	}
	return nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}
