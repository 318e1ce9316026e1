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
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/sleep"
)

// program is one daemon.
type program struct {
	// name becomes argv[0]. One that begins with "@" is spared by systemd, if it
	// is root's, and by our own init when they end everything at shutdown
	// (https://systemd.io/ROOT_STORAGE_DAEMONS).
	name string
	path string
	args []string
	// input is its standard input; nil is an empty file.
	input *os.File
	// rights are what it may do; nil leaves it all of ours.
	rights *rights
	// nice is its nice value, and then it gets a session of its own, with the same
	// value; zero leaves it in ours.
	nice int
	// session gives it a session of its own in any case.
	session bool
	// prepare, if there is one, is called before every start.
	prepare func()
	// wanted, if there is one, is asked after input has ended, and from then on from time
	// to time until it says that there is something to do for the program.
	wanted func() bool
}

// wantedEvery is the time between two questions whether a program is wanted: a rune may
// be added to a machine that runs.
const wantedEvery = time.Second

// supervisor says how the programs are kept running.
type supervisor struct {
	programs []program
	// output receives what the programs print, e.g. the kernel log.
	output *os.File
	// started is told the process ID of each program at every start.
	started func(name string, pid int)
	// shuttingDown is asked before a program is started again.
	shuttingDown func() bool
	// backoff is the wait before the first restart; it doubles up to 30 times
	// that and falls back after a minute without a crash.
	backoff time.Duration
	log     *slog.Logger
}

// run starts the programs and starts them again when they end, until ctx ends
// or the machine shuts down. When ctx ends, the programs are killed.
func (s *supervisor) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range s.programs {
		g.Go(func() error { return s.restart(ctx, p) })
	}
	return g.Wait()
}

func (s *supervisor) restart(ctx context.Context, p program) error {
	wait := s.backoff
	if err := p.await(ctx, s.log); err != nil {
		return nil
	}
	for {
		began := time.Now()
		err := s.once(ctx, p)
		if ctx.Err() != nil {
			return nil
		}
		if s.shuttingDown() {
			s.log.Info("not started again, because this is the end", "program", p.name, "error", err)
			return nil
		}
		if time.Since(began) > time.Minute {
			wait = s.backoff
		}
		s.log.Warn("program ended, starting it again", "program", p.name, "error", err, "in", wait)
		if sleep.For(ctx, wait) != nil {
			return nil
		}
		wait = min(2*wait, 30*s.backoff)
	}
}

// await returns when a program may begin that is not always wanted.
func (p *program) await(ctx context.Context, log *slog.Logger) error {
	if p.wanted == nil {
		return nil
	}
	if p.input != nil { // uinit ends it, at the latest by its own end
		if _, err := io.Copy(io.Discard, p.input); err != nil {
			log.Warn("a program does not know when to begin, and does when it is wanted", "program", p.name, "error", err)
		}
	}
	for ctx.Err() != nil || !p.wanted() {
		if err := sleep.For(ctx, wantedEvery); err != nil {
			return err
		}
	}
	return nil
}

func (s *supervisor) once(ctx context.Context, p program) error {
	cmd := exec.CommandContext(ctx, p.path)
	cmd.Args = append([]string{p.name}, p.args...)
	cmd.Stdout, cmd.Stderr = s.output, s.output
	if p.input != nil {
		cmd.Stdin = p.input
	}
	if p.prepare != nil {
		p.prepare()
	}
	if err := p.begin(cmd, s.log); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	s.started(p.name, cmd.Process.Pid)
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
