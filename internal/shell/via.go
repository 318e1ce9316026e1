package shell

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"

	"viver.lan/internal/control"
)

// Via asks a node for the members of its network, through ssh: for a computer that is no
// node. ssh believes that node by what its user knows, so that all other keys come from
// there.
type Via struct {
	Program string // ssh
	Node    string // as ssh takes it, of root if it names no user
	Stderr  io.Writer
}

// Watch calls take with the node's status, at once and whenever it has changed, until ctx
// ends, take returns an error, or the connection does.
func (v Via) Watch(ctx context.Context, take func(*control.Status) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd := exec.CommandContext(ctx, v.Program, "-T", "-o", "ConnectTimeout=10", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3",
		"-o", "ControlPath=none", "--", asRoot(v.Node), "viver", "status", "--watch", "-o", "json")
	cmd.Stderr = v.Stderr
	cmd.WaitDelay = grace
	out, err := cmd.StdoutPipe()
	if err != nil {
		return fmt.Errorf("ask %s: %w", v.Node, err)
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("ask %s: %w", v.Node, err)
	}
	err = readStatuses(out, take)
	if errors.Is(err, io.EOF) {
		err = errors.Join(errEnded, cmd.Wait())
	} else {
		cancel()
		_ = cmd.Wait() // it was ended by us
	}
	return fmt.Errorf("ask %s: %w", v.Node, err)
}

// errEnded means that there are no more statuses.
var errEnded = errors.New("ssh has ended")

// readStatuses calls take with each status of a stream, one after the other, until that
// ends (io.EOF) or take has enough.
func readStatuses(r io.Reader, take func(*control.Status) error) error {
	stream := json.NewDecoder(r)
	for {
		s := new(control.Status)
		switch err := stream.Decode(s); {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return io.EOF
		case err != nil:
			return fmt.Errorf("its answer is no status of a node: %w", err)
		}
		if err := take(s); err != nil {
			return err
		}
	}
}
