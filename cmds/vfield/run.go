package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const usage = `usage: vfield VERB
  supervise   keep the daemons of this node running (started by uinit)
  node        be this node's root disk (started by the supervisor)
       vfield --listen ADDRESS:PORT ...
              serve an image to NBD clients on any machine; vfield --help tells more`

// fewProcessors keeps the Go runtime to one processor, to two where there are
// many. One moves some 300 MB/s; a second one mostly burns a fifth more CPU in
// waking and watching the first, which the machine's own work can use.
func fewProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(min(max(runtime.NumCPU()/4, 1), 2))
	}
}

// usageError marks a mistake in the command line itself.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// run carries out one verb.
func run(ctx context.Context, args []string) error {
	fewProcessors()
	if len(args) > 0 && strings.HasPrefix(args[0], "-") {
		return listen(ctx, args)
	}
	if len(args) != 1 {
		return usageError{errors.New(usage)}
	}
	switch args[0] {
	case "supervise":
		return supervisor(ctx)
	case "node":
		return blockDaemon(ctx)
	}
	return usageError{fmt.Errorf("no verb %q\n%s", args[0], usage)}
}

// protect makes this process the last to suffer when the machine is short of
// memory or an init ends everything: the root disk hangs on it.
func protect() error {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
	var errs []error
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0o644); err != nil {
		errs = append(errs, fmt.Errorf("keep out of the OOM killer's reach: %w", err))
	}
	// Pages we touched must not wait for a disk that waits for us. On fault
	// only: the Go runtime reserves far more than it uses.
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		errs = append(errs, fmt.Errorf("lock memory: %w", err))
	}
	errs = append(errs, refuseToStop())
	// Allocations on behalf of a block device must not wait for its write-back
	// (prctl(2), Linux 5.6).
	if err := unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0); err != nil {
		errs = append(errs, fmt.Errorf("mark as block device server: %w", err))
	}
	return errors.Join(errs...)
}
