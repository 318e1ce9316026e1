package harness

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
)

// qmp is a client of QEMU's machine protocol.
type qmp struct {
	conn    net.Conn
	onEvent func(name string, data json.RawMessage)

	mu      sync.Mutex
	nextID  int
	pending map[int]chan qmpReply // nil: the connection ended
	ready   chan struct{}         // closed by the greeting
}

type qmpReply struct {
	Return json.RawMessage
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	}
}

var errMachineOff = errors.New("the machine is off")

func newQMP(conn net.Conn, onEvent func(string, json.RawMessage)) *qmp {
	return &qmp{conn: conn, onEvent: onEvent, pending: map[int]chan qmpReply{}, ready: make(chan struct{})}
}

// run reads until QEMU is gone. Its owner waits for it.
func (q *qmp) run() {
	defer q.end()
	lines := bufio.NewReader(q.conn)
	greeted := false
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			if !errors.Is(err, io.EOF) {
				q.conn.Close()
			}
			return
		}
		var m struct {
			QMP    json.RawMessage `json:"QMP"`
			Event  string          `json:"event"`
			Data   json.RawMessage `json:"data"`
			ID     int             `json:"id"`
			Return json.RawMessage `json:"return"`
			Error  json.RawMessage `json:"error"`
		}
		if json.Unmarshal(line, &m) != nil {
			continue
		}
		switch {
		case m.QMP != nil && !greeted:
			greeted = true
			close(q.ready)
		case m.Event != "":
			q.onEvent(m.Event, m.Data)
		default:
			reply := qmpReply{Return: m.Return}
			if m.Error != nil {
				_ = json.Unmarshal(m.Error, &reply.Error)
			}
			q.mu.Lock()
			if answer := q.pending[m.ID]; answer != nil {
				answer <- reply // has room for one
				delete(q.pending, m.ID)
			}
			q.mu.Unlock()
		}
	}
}

func (q *qmp) end() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, answer := range q.pending {
		close(answer)
	}
	q.pending = nil
}

// start waits for QEMU and leaves the negotiation mode.
func (q *qmp) start(ctx context.Context) error {
	select {
	case <-q.ready:
	case <-ctx.Done():
		return fmt.Errorf("wait for QEMU's greeting: %w", context.Cause(ctx))
	}
	return q.do(ctx, "qmp_capabilities", nil)
}

// do runs one command; args is marshalled and may be nil.
func (q *qmp) do(ctx context.Context, command string, args any) error {
	q.mu.Lock()
	if q.pending == nil {
		q.mu.Unlock()
		return fmt.Errorf("%s: %w", command, errMachineOff)
	}
	q.nextID++
	id := q.nextID
	answer := make(chan qmpReply, 1)
	q.pending[id] = answer
	q.mu.Unlock()

	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        int    `json:"id"`
	}{command, args, id})
	if err != nil {
		return fmt.Errorf("%s: %w", command, err)
	}
	if _, err := q.conn.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("%s: %w", command, errMachineOff)
	}
	select {
	case reply, ok := <-answer:
		if !ok {
			return fmt.Errorf("%s: %w", command, errMachineOff)
		}
		if reply.Error != nil {
			return fmt.Errorf("%s: QEMU says %s: %s", command, reply.Error.Class, reply.Error.Desc)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", command, context.Cause(ctx))
	}
}
