// Package thread runs a function on a kernel thread of its own.
//
// What a thread changes about itself, such as its capabilities or its mount namespace, a
// program that it starts inherits; the rest of the process must not. The package knows of
// these changes only how late timers may be. The invariant: the thread ends with the
// function, so nothing else ever runs on it.
package thread

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Run runs f on a new thread and waits for it. The main thread would not end, so while
// we hold that, another one takes its place.
func Run(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			err := Run(f)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// DefaultTimerSlack is what the kernel gives process 1 (prctl(2)).
const DefaultTimerSlack = 50 * time.Microsecond

// SetTimerSlack says by how much timers of this thread may be late, and those of threads
// and programs that it starts (PR_SET_TIMERSLACK, prctl(2)).
func SetTimerSlack(d time.Duration) error {
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(d.Nanoseconds()), 0, 0, 0); err != nil {
		return fmt.Errorf("set timer slack: %w", err)
	}
	return nil
}
