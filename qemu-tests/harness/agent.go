package harness

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"viver.lan/qemu-tests/guests/execproto"
)

// ErrGuestGone says that the guest was reset or switched off while it had
// something to do for us.
var ErrGuestGone = errors.New("the guest went away before it answered")

// agent is the host's side of the agent in the guest.
type agent struct {
	conn    net.Conn
	writing chan struct{} // has room for the one who writes
	torn    bool          // the last write left half a line; belongs to the writer

	mu      sync.Mutex
	hello   *execproto.Hello
	changed chan struct{} // closed and replaced when hello changes
	nextID  uint64
	pending map[uint64]chan execproto.Response
	ended   bool
}

func newAgent(conn net.Conn) *agent {
	return &agent{conn: conn, writing: make(chan struct{}, 1), changed: make(chan struct{}), pending: map[uint64]chan execproto.Response{}}
}

// run reads replies until QEMU is gone.
func (a *agent) run() {
	lines := bufio.NewScanner(a.conn)
	lines.Buffer(make([]byte, 0, 64<<10), execproto.MaxLine)
	for lines.Scan() {
		hello, response, err := execproto.DecodeReply(lines.Bytes())
		switch {
		case err != nil: // half a line from before a reset
		case hello != nil:
			a.greet(hello)
		case response != nil:
			a.mu.Lock()
			if answer := a.pending[response.ID]; answer != nil {
				answer <- *response // has room for one
				delete(a.pending, response.ID)
			}
			a.mu.Unlock()
		}
	}
	a.mu.Lock()
	a.ended = true
	a.mu.Unlock()
	a.lost()
	a.conn.Close()
}

func (a *agent) greet(hello *execproto.Hello) {
	a.mu.Lock()
	reborn := a.hello != nil && a.hello.BootID != hello.BootID
	a.mu.Unlock()
	if reborn {
		a.lost()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hello = hello
	close(a.changed)
	a.changed = make(chan struct{})
}

// lost forgets the guest that was there and fails what it still had to do.
func (a *agent) lost() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.hello = nil
	for id, answer := range a.pending {
		close(answer)
		delete(a.pending, id)
	}
	close(a.changed)
	a.changed = make(chan struct{})
}

// ready waits for the agent of the running guest.
func (a *agent) ready(ctx context.Context) (execproto.Hello, error) {
	for {
		a.mu.Lock()
		hello, changed, ended := a.hello, a.changed, a.ended
		a.mu.Unlock()
		if hello != nil {
			return *hello, nil
		}
		if ended {
			return execproto.Hello{}, errMachineOff
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return execproto.Hello{}, context.Cause(ctx)
		}
	}
}

// do sends one request and waits for its response.
func (a *agent) do(ctx context.Context, req execproto.Request) (execproto.Response, error) {
	answer := make(chan execproto.Response, 1)
	a.mu.Lock()
	if a.ended {
		a.mu.Unlock()
		return execproto.Response{}, errMachineOff
	}
	a.nextID++
	req.ID = a.nextID
	a.pending[req.ID] = answer
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.pending, req.ID)
		a.mu.Unlock()
	}()

	line, err := execproto.Encode(req)
	if err != nil {
		return execproto.Response{}, err
	}
	if err := a.write(ctx, line); err != nil {
		return execproto.Response{}, err
	}
	select {
	case r, ok := <-answer:
		if !ok {
			return execproto.Response{}, ErrGuestGone
		}
		return r, nil
	case <-ctx.Done():
		return execproto.Response{}, context.Cause(ctx)
	}
}

// write gives up with ctx: a guest that does not read its port stalls it.
func (a *agent) write(ctx context.Context, line []byte) error {
	select {
	case a.writing <- struct{}{}:
		defer func() { <-a.writing }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if a.torn {
		line = append([]byte{'\n'}, line...) // ends what an earlier write began
	}
	if err := a.conn.SetWriteDeadline(time.Time{}); err != nil {
		return errMachineOff
	}
	gaveUp := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = a.conn.SetWriteDeadline(time.Unix(1, 0)) // fails on a closed port only
		close(gaveUp)
	})
	_, err := a.conn.Write(line)
	if !stop() {
		<-gaveUp // not in the middle of somebody else's write
	}
	a.torn = err != nil
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return errMachineOff
}

// ExitError says that a command in the guest did not end well.
type ExitError struct {
	Argv     []string
	Response execproto.Response
}

// Error has the command, its exit code and the end of what it complained.
func (e *ExitError) Error() string {
	why := fmt.Sprintf("exit %d", e.Response.Exit)
	if e.Response.Error != "" {
		why = e.Response.Error
	}
	if stderr := strings.TrimSpace(string(e.Response.Stderr)); stderr != "" {
		why += ": " + stderr[max(0, len(stderr)-400):]
	}
	return fmt.Sprintf("%s: %s", strings.Join(e.Argv, " "), why)
}
