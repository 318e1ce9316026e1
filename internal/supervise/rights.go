package supervise

import (
	"errors"
	"fmt"
	"log/slog"
	"os/exec"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"viver.lan/internal/thread"
)

// rights are all that a program may do.
type rights struct {
	// uid and gid should be no other program's, so that nothing belongs to them.
	uid, gid uint32
	// capabilities are kept (capabilities(7)), all others are dropped for ever:
	// neither a program that it starts nor a file's set-user-ID bit gives more.
	capabilities []uintptr
}

// begin starts cmd as this program. What has to be given up or set before a
// program begins is given up or set by a thread of its own, from which that
// program inherits. A priority that cannot be set is in the log.
func (p *program) begin(cmd *exec.Cmd, log *slog.Logger) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: p.nice != 0 || p.session}
	if p.rights != nil {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: p.rights.uid, Gid: p.rights.gid}
		cmd.SysProcAttr.AmbientCaps = p.rights.capabilities
	}
	var priority error
	err := thread.Run(func() error {
		priority = thread.SetTimerSlack(timerSlack)
		if p.nice != 0 {
			priority = errors.Join(priority, niceSelf(p.nice))
		}
		if p.rights != nil {
			if err := p.rights.giveUp(); err != nil {
				return err
			}
		}
		return cmd.Start()
	})
	if err != nil {
		return err
	}
	if p.nice != 0 {
		priority = errors.Join(priority, niceSession(cmd.Process.Pid, p.nice))
	}
	if priority != nil {
		log.Warn("program has no priority", "program", p.name, "error", priority)
	}
	return nil
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
