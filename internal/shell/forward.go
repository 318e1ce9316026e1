package shell

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"viver.lan/internal/sleep"
)

// Forward brings the socket of a node's block daemon to this computer, through ssh, which
// believes the node by what its user knows. So the owner's key need not leave this
// computer.
type Forward struct {
	Program string // ssh
	Node    string // as ssh takes it, of root if it names no user
	Socket  string // there
	Stderr  io.Writer
}

const (
	// forwardWait is how long ssh may take until the socket is here: a person may have to
	// enter a passphrase.
	forwardWait = 2 * time.Minute
	// forwardLook is the time between two looks for it: ssh does not say when it is ready.
	forwardLook = 20 * time.Millisecond
)

// Open connects, and returns the socket's path here. close ends the connection and must
// be called.
func (f Forward) Open(ctx context.Context) (socket string, close func(), err error) {
	dir, err := os.MkdirTemp("", "viver-") // mode 0700: nobody else may use it
	if err != nil {
		return "", nil, fmt.Errorf("reach %s: %w", f.Node, err)
	}
	socket = filepath.Join(dir, "s")
	running, end := context.WithCancelCause(ctx)
	cmd := exec.CommandContext(running, f.Program, "-T", "-N", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3",
		"-o", "ControlPath=none", "-o", "ExitOnForwardFailure=yes", "-L", socket+":"+f.Socket, "--", asRoot(f.Node))
	cmd.Stderr = f.Stderr
	cmd.WaitDelay = grace
	if err := cmd.Start(); err != nil {
		end(nil)
		return "", nil, errors.Join(fmt.Errorf("reach %s: %w", f.Node, err), os.RemoveAll(dir))
	}
	done := make(chan error, 1)
	go func() {
		err := errors.Join(errEnded, cmd.Wait())
		end(err)
		done <- errors.Join(err, os.RemoveAll(dir))
	}()
	close = func() {
		end(nil)
		<-done
	}
	waiting, cancel := context.WithTimeoutCause(running, forwardWait, errors.New("ssh has not connected"))
	defer cancel()
	for {
		if _, err := os.Lstat(socket); err == nil {
			return socket, close, nil
		}
		if err := sleep.For(waiting, forwardLook); err != nil {
			close()
			return "", nil, fmt.Errorf("reach %s: %w", f.Node, err)
		}
	}
}

// asRoot is the node as ssh takes it, with root as its user if it names none.
func asRoot(node string) string {
	if strings.Contains(node, "@") {
		return node
	}
	return "root@" + node
}
