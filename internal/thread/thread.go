// Package thread runs a function on a kernel thread of its own.
//
// What a thread changes about itself, such as its capabilities or its mount namespace, a
// program that it starts inherits; the rest of the process must not. The package knows
// none of these changes. The invariant: the thread ends with the function, so nothing
// else ever runs on it.
package thread

import (
	"runtime"

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
