// Package protect keeps a process that the root disk hangs on running to the end:
// while memory is short, and while an init ends everything.
package protect

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// ThisProcess makes this process the last to suffer when the machine is short of
// memory or an init ends everything. What fails is in the error, and all else is
// done.
func ThisProcess() error {
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
