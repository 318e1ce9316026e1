package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"viver.lan/qemu-tests/guests/execproto"
)

// execute carries out one request.
func execute(ctx context.Context, req execproto.Request) execproto.Response {
	ctx, cancel := context.WithTimeoutCause(ctx, req.Deadline(), fmt.Errorf("not done after %s", req.Deadline()))
	defer cancel()
	stdout, stderr := &output{}, &output{}
	r := execproto.Response{ID: req.ID}
	switch {
	case len(req.Argv) == 0 || req.Argv[0] == "":
		r.Exit, r.Error = -1, "an empty argv"
	case strings.HasPrefix(req.Argv[0], "@"):
		r.Exit, r.Error = executeOwn(ctx, req, stdout, stderr)
	default:
		r.Exit, r.Error = executeProgram(ctx, req, stdout, stderr)
	}
	r.Stdout, r.Stderr = stdout.data, stderr.data
	r.Truncated = stdout.truncated || stderr.truncated
	return r
}

func executeProgram(ctx context.Context, req execproto.Request, stdout, stderr io.Writer) (int, string) {
	cmd := exec.CommandContext(ctx, req.Argv[0], req.Argv[1:]...)
	cmd.Stdin = strings.NewReader(string(req.Stdin))
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return -1, context.Cause(ctx).Error()
	case err == nil || errors.Is(err, exec.ErrWaitDelay): // it left a child behind
		return 0, ""
	case errors.As(err, &exit):
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal()), ""
		}
		return exit.ExitCode(), ""
	}
	return -1, err.Error()
}

// executeOwn carries out one of the agent's own commands.
func executeOwn(ctx context.Context, req execproto.Request, stdout, stderr io.Writer) (int, string) {
	own, ok := map[string]func(context.Context, execproto.Request, io.Writer, io.Writer) error{
		execproto.CmdHello:      cmdHello,
		execproto.CmdSHA256:     cmdSHA256,
		execproto.CmdRead:       cmdRead,
		execproto.CmdWrite:      cmdWrite,
		execproto.CmdList:       cmdList,
		execproto.CmdProcesses:  cmdProcesses,
		execproto.CmdKill:       cmdKill,
		execproto.CmdInterfaces: cmdInterfaces,
		execproto.CmdGet:        cmdGet,
		execproto.CmdDropCaches: cmdDropCaches,
	}[req.Argv[0]]
	if !ok {
		return -1, fmt.Sprintf("the agent has no command %s", req.Argv[0])
	}
	err := own(ctx, req, stdout, stderr)
	switch {
	case err == nil:
		return 0, ""
	case ctx.Err() != nil:
		return -1, context.Cause(ctx).Error()
	}
	fmt.Fprintln(stderr, err)
	return 1, ""
}

// output keeps the first MaxOutput bytes of a stream.
type output struct {
	data      []byte
	truncated bool
}

func (o *output) Write(p []byte) (int, error) {
	room := execproto.MaxOutput - len(o.data)
	o.truncated = o.truncated || len(p) > room
	o.data = append(o.data, p[:min(room, len(p))]...)
	return len(p), nil
}
