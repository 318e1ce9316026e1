// Package supervise keeps the daemons of a node running.
//
// Its program is forked by uinit before the distribution's init takes over,
// lives in the initramfs's mount namespace and does nothing but start the
// daemons again when they end. It holds no state: the pieces of the image lie
// in a file of that namespace, which lives as long as the supervisor does. The
// invariant: while the machine is not shutting down, every program runs or is
// about to be started.
package supervise

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/sleep"
)

// Program is one daemon.
type Program struct {
	// Name becomes argv[0]. One that begins with "@" is spared by systemd, if it
	// is root's, and by our own init when they end everything at shutdown
	// (https://systemd.io/ROOT_STORAGE_DAEMONS).
	Name string
	Path string
	Args []string
	// Rights are what it may do; nil leaves it all of ours.
	Rights *Rights
	// Prepare, if there is one, is called before every start.
	Prepare func()
}

// Supervisor says how the programs are kept running.
type Supervisor struct {
	Programs []Program
	// Output receives what the programs print, e.g. the kernel log.
	Output *os.File
	// Started is told the process ID of each program at every start.
	Started func(name string, pid int)
	// ShuttingDown is asked before a program is started again.
	ShuttingDown func() bool
	// Backoff is the wait before the first restart; it doubles up to 30 times
	// that and falls back after a minute without a crash.
	Backoff time.Duration
	Log     *slog.Logger
}

// Run starts the programs and starts them again when they end, until ctx ends
// or the machine shuts down. When ctx ends, the programs are killed.
func (s *Supervisor) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range s.Programs {
		g.Go(func() error { return s.restart(ctx, p) })
	}
	return g.Wait()
}

func (s *Supervisor) restart(ctx context.Context, p Program) error {
	wait := s.Backoff
	for {
		began := time.Now()
		err := s.once(ctx, p)
		if ctx.Err() != nil {
			return nil
		}
		if s.ShuttingDown() {
			s.Log.Info("not started again, the machine shuts down", "program", p.Name, "end", err)
			return nil
		}
		if time.Since(began) > time.Minute {
			wait = s.Backoff
		}
		s.Log.Warn("program ended, starting it again", "program", p.Name, "end", err, "in", wait)
		if sleep.For(ctx, wait) != nil {
			return nil
		}
		wait = min(2*wait, 30*s.Backoff)
	}
}

func (s *Supervisor) once(ctx context.Context, p Program) error {
	cmd := exec.CommandContext(ctx, p.Path)
	cmd.Args = append([]string{p.Name}, p.Args...)
	cmd.Stdout, cmd.Stderr = s.Output, s.Output
	if p.Prepare != nil {
		p.Prepare()
	}
	start := cmd.Start
	if p.Rights != nil {
		start = func() error { return p.Rights.start(cmd) }
	}
	if err := start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	s.Started(p.Name, cmd.Process.Pid)
	return cmd.Wait()
}

// ShuttingDown reports whether the init whose command line is at cmdline
// (usually /proc/1/cmdline) is ending the machine: systemd becomes
// systemd-shutdown, sysvinit writes its runlevel 0 or 6 into its name.
func ShuttingDown(cmdline string) bool {
	data, err := os.ReadFile(cmdline)
	if err != nil {
		return false
	}
	argv0, _, _ := bytes.Cut(data, []byte{0})
	name := strings.TrimSpace(string(argv0))
	return strings.Contains(name, "systemd-shutdown") || strings.HasSuffix(name, "[0]") || strings.HasSuffix(name, "[6]")
}
