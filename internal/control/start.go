package control

import (
	"fmt"
	"io"
)

// The descriptors on which the supervisor has the files that AwaitStart is about.
const (
	VFieldStart = 3 + iota
	AgentStart
	RunnerStart
)

// AwaitStart returns when a daemon may begin: when its standard input has ended, which
// holds nothing. uinit starts the daemons early, and closes the other end of each one's
// pipe when it has written what that one reads. One that is started again later finds
// the end at once.
func AwaitStart(input io.Reader) error {
	if _, err := io.Copy(io.Discard, input); err != nil {
		return fmt.Errorf("wait until uinit has written what the daemons read: %w", err)
	}
	return nil
}
