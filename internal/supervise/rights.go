package supervise

import (
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// rights are all that a program may do.
type rights struct {
	// uid and gid should be no other program's, so that nothing belongs to them.
	uid, gid uint32
	// capabilities are kept (capabilities(7)), all others are dropped for ever:
	// neither a program that it starts nor a file's set-user-ID bit gives more.
	capabilities []uintptr
}

// start starts cmd with these rights. What has to be given up before a program
// begins is given up by a thread of its own, from which that program inherits.
func (r *rights) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: r.uid, Gid: r.gid},
		AmbientCaps: r.capabilities,
	}
	return onNewThread(func() error {
		if err := r.giveUp(); err != nil {
			return err
		}
		return cmd.Start()
	})
}

// onNewThread runs f on a thread that ends afterwards. The main thread would
// not, so while we hold that, another one takes its place.
func onNewThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			err := onNewThread(f)
			runtime.UnlockOSThread()
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// giveUp empties this thread's bounding set down to the capabilities.
func (r *rights) giveUp() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("forbid new privileges: %w", err)
	}
	for c := uintptr(0); ; c++ {
		if slices.Contains(r.capabilities, c) {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			return nil // the kernel has no more
		}
		if err != nil {
			return fmt.Errorf("give up capability %d: %w", c, err)
		}
	}
}
