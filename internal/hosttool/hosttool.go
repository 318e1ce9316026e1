// Package hosttool runs the programs of this machine that images and media are
// made with, such as mksquashfs and xorriso.
//
// It knows none of them. What one prints becomes part of the error when it fails,
// and no program outlives the context it was started with.
package hosttool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Find returns the path of a program, of the administrator's directories too: an
// ordinary user's PATH often lacks them.
func Find(name string) (string, error) {
	for _, dir := range []string{"", "/usr/sbin", "/sbin"} {
		if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("%s is not installed", name)
}

// Run runs a program to its end. env is added to this process's environment.
func Run(ctx context.Context, env []string, name string, args ...string) error {
	program, err := Find(name)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), env...)
	// Ctrl-C reaches us, and we end the whole group: grub-mkrescue has children.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	output, err := cmd.CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return failed(name, err, string(output))
	}
	return nil
}

// Output runs a program to its end and returns what it printed. files are the program's /dev/fd/3
// and so on. A program that says by its exit status that it found nothing is an
// *exec.ExitError.
func Output(ctx context.Context, files []*os.File, name string, args ...string) ([]byte, error) {
	program, err := Find(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.ExtraFiles = files
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	output, err := cmd.Output()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, failed(name, err, complaints.String())
	}
	return output, nil
}

// Feed runs cmd, made by exec.CommandContext with ctx, to its end, and writes to
// its standard input what fill writes. When fill fails, the program is ended
// first: what ends early would look whole to it.
func Feed(ctx context.Context, cmd *exec.Cmd, fill func(io.Writer) error) error {
	name := filepath.Base(cmd.Path)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true // Ctrl-C reaches us, and we end it
	var output bytes.Buffer
	cmd.Stderr = &output
	if cmd.Stdout == nil {
		cmd.Stdout = &output
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	filled := fill(stdin)
	if filled != nil {
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
		return failed(name, fmt.Errorf("it ended before it had read all: %w", filled), output.String())
	case exited != nil:
		return failed(name, exited, output.String())
	}
	return nil
}

// failed adds to an error what a program printed last. A full disk is recognised,
// because a program's exit status does not tell.
func failed(name string, err error, output string) error {
	if strings.Contains(output, syscall.ENOSPC.Error()) || strings.Contains(output, "No space left") {
		err = errors.Join(err, syscall.ENOSPC)
	}
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return fmt.Errorf("%s: %w: %s", name, err, strings.Join(lines[max(0, len(lines)-4):], "; "))
}
