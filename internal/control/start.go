package control

import (
	"fmt"
	"io"
)

// AwaitStart returns when a daemon may begin: when its standard input has ended. uinit
// starts the daemons early, and closes the other end of that pipe when it has written
// what they read. One that is started again later finds the end at once.
func AwaitStart(input io.Reader) error {
	if _, err := io.Copy(io.Discard, input); err != nil {
		return fmt.Errorf("wait until uinit has written what the daemons read: %w", err)
	}
	return nil
}
