package supervise

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"viver.lan/internal/control"
)

// endWithin is how long the programs of a server may take to end when they are told: the
// volume says goodbye to the members.
const endWithin = 5 * time.Second

// Server keeps the programs of a server running until ctx ends: the volume and the agent,
// as this program starts them when its arguments are volume and agent. What they print
// goes to output. Each has an open standard input that holds nothing, and ends when that
// does: with this process, whatever way that ends.
func Server(ctx context.Context, output *os.File, log *slog.Logger, volume, agent []string) error {
	alive, end, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("supervise: %w", err)
	}
	defer alive.Close()
	running, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	stop := context.AfterFunc(ctx, func() {
		_ = end.Close()
		time.AfterFunc(endWithin, kill)
	})
	defer stop()
	s := supervisor{
		programs:     []program{self("volume", volume, alive, nil), self("agent", agent, alive, agentRights())},
		output:       output,
		started:      func(name string, pid int) { log.Debug("started", "program", name, "pid", pid) },
		shuttingDown: func() bool { return ctx.Err() != nil },
		backoff:      200 * time.Millisecond,
		log:          log,
	}
	return errors.Join(s.run(running), closed(end))
}

// self is this program once more. The kernel finds it where the agent may not look. It has
// a session of its own: a terminal's Ctrl-C is for us.
func self(name string, args []string, input *os.File, rights *rights) program {
	return program{name: name, path: "/proc/self/exe", args: args, input: input, rights: rights, session: true}
}

// closed closes a file that may be closed already.
func closed(f *os.File) error {
	if err := f.Close(); !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// agentRights are those of the agent on every machine, nil in a container that has no such
// user.
func agentRights() *rights {
	if !control.AgentExists() {
		return nil
	}
	return newAgentRights()
}
