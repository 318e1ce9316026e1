package supervise

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// agentNice is the agent's nice value (setpriority(2)). A boot host serves most when
// a room is switched on, which is when its own system starts dozens of services.
// Firmware waits for each answer of the agent, so what counts is how soon it runs,
// not for how long: it uses little. -5 is three shares of a processor to one of
// an ordinary program's.
//
// The block daemon is an ordinary program but while the machine boots (package
// blockdaemon): it also fetches and hashes the whole image.
const agentNice = -5

// niceSelf gives this thread a nice value, which programs that it starts inherit.
func niceSelf(value int) error {
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, value); err != nil {
		return fmt.Errorf("set nice value %d: %w", value, err)
	}
	return nil
}

// niceSession gives the session that a process leads a nice value. Where no cgroup
// divides the processors, the kernel divides them among sessions first
// (CONFIG_SCHED_AUTOGROUP, sched(7)), and the nice values of processes count only
// within each. A kernel that does not do so is no error.
//
// Beside six busy sessions on two processors (Linux 6.18), a program that wakes up
// for 0.3 ms of work began 1.6 to 1.9 ms late, with a nice value of -5 alone 1.9 ms,
// and with the session's too 0.5 to 0.6 ms.
func niceSession(leader, value int) error {
	err := os.WriteFile(fmt.Sprintf("/proc/%d/autogroup", leader), []byte(strconv.Itoa(value)), 0o644)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("set the session's nice value %d: %w", value, err)
}
