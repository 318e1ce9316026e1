package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/booted"
	"viver.lan/internal/initsystem"
	"viver.lan/internal/runes"
	"viver.lan/internal/tail"
)

const (
	// hookTimeout is how long a hook may take.
	hookTimeout = 60 * time.Second
	// hookGrace is how long its output is waited for when it has ended and left something
	// running.
	hookGrace = time.Second
	// maxHookOutput bounds what is kept of its output: the end.
	maxHookOutput = 64 << 10
)

// hookRunner runs hooks in the booted system.
type hookRunner struct {
	system booted.System
	dir    string // for programs and their output; the same path here and in the system
	cgroup string // below which each hook gets a cgroup of its own
	limit  time.Duration
	init   initsystem.Kind
	// command runs a program of the system's, see runIn.
	command func(ctx context.Context, argv ...string) ([]byte, error)
}

// run runs one hook and waits for it. What it left running when it ended in time may go
// on; at the deadline all that it has started is killed. Its output is in a file
// beside it.
func (r hookRunner) run(ctx context.Context, bundle string, moment runes.Moment, h runes.Hook) (err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.limit, fmt.Errorf("not done after %s: it and all that it started were killed", r.limit))
	defer cancel()
	program := filepath.Join(r.dir, bundle+"."+string(moment))
	if err := writeProgram(program, h.Program); err != nil {
		return err
	}
	out := tail.New(maxHookOutput)
	cmd := exec.CommandContext(ctx, program)
	cmd.Args = append(append([]string{}, h.Interpreter...), program) // even where /run is noexec
	cmd.Env = h.Env
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	group := newCgroup(r.cgroup, bundle+"."+string(moment))
	defer group.close()
	group.apply(cmd.SysProcAttr)
	cmd.Cancel = func() error { return errors.Join(group.kill(), unix.Kill(-cmd.Process.Pid, unix.SIGKILL)) }
	cmd.WaitDelay = hookGrace
	if err = r.system.Start(cmd, ""); err == nil {
		err = cmd.Wait()
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it left something running that holds its output, which is allowed
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	} else if line := out.LastLine(); err != nil && line != "" {
		err = fmt.Errorf("%w: %s", err, line)
	}
	// What it printed is for people, and not worth a failure.
	_ = os.WriteFile(program+".log", out.Bytes(), 0o600)
	return err
}

// writeProgram lays a program to run. A running one of that name stays what it is.
func writeProgram(name string, data []byte) error {
	if err := os.MkdirAll(path.Dir(name), 0o700); err != nil {
		return err
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.WriteFile(name, data, 0o700)
}

// cgroup is one of a program's own, so that it can be ended with all that it has
// started. On a machine without cgroup2 it is nothing, and the process group has to do.
type cgroup struct {
	path string
	dir  *os.File
}

func newCgroup(top, name string) cgroup {
	if _, err := os.Stat(filepath.Join(filepath.Dir(top), "cgroup.controllers")); err != nil {
		return cgroup{}
	}
	if err := os.Mkdir(top, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return cgroup{}
	}
	// One that still holds what an earlier run left running keeps its name.
	for i := range 100 {
		p := filepath.Join(top, name+"."+strconv.Itoa(i))
		_ = os.Remove(p) // of an earlier run, when it is empty
		if os.Mkdir(p, 0o755) == nil {
			if dir, err := os.Open(p); err == nil {
				return cgroup{p, dir}
			}
		}
	}
	return cgroup{}
}

// apply has a program start in the cgroup.
func (g cgroup) apply(attr *syscall.SysProcAttr) {
	if g.dir != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(g.dir.Fd())
	}
}

// kill ends all that is in it.
func (g cgroup) kill() error {
	if g.dir == nil {
		return nil
	}
	return os.WriteFile(filepath.Join(g.path, "cgroup.kill"), []byte("1"), 0)
}

func (g cgroup) close() {
	if g.dir != nil {
		_ = g.dir.Close()
		_ = os.Remove(g.path) // stays while something runs in it
	}
}
