package harness

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"viver.lan/qemu-tests/guests/execproto"
)

// fakeGuest is the other end of an agent's port.
type fakeGuest struct {
	t     *testing.T
	conn  net.Conn
	lines *bufio.Reader
}

func newFakeGuest(t *testing.T) (*agent, *fakeGuest) {
	t.Helper()
	ours, theirs := net.Pipe()
	a := newAgent(ours)
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.run()
	}()
	t.Cleanup(func() {
		theirs.Close()
		<-done
	})
	return a, &fakeGuest{t: t, conn: theirs, lines: bufio.NewReader(theirs)}
}

// send may be called from other goroutines, so it does not end the test.
func (g *fakeGuest) send(message any) {
	g.t.Helper()
	line, err := execproto.Encode(message)
	if err == nil {
		_, err = g.conn.Write(line)
	}
	if err != nil {
		g.t.Error(err)
	}
}

func (g *fakeGuest) receive() execproto.Request {
	g.t.Helper()
	line, err := g.lines.ReadBytes('\n')
	if err != nil {
		g.t.Fatal(err)
	}
	var req execproto.Request
	if err := json.Unmarshal(line, &req); err != nil {
		g.t.Fatal(err)
	}
	return req
}

type answer struct {
	resp execproto.Response
	err  error
}

func ask(ctx context.Context, a *agent, argv ...string) <-chan answer {
	result := make(chan answer, 1)
	go func() {
		resp, err := a.do(ctx, execproto.Request{Argv: argv})
		result <- answer{resp, err}
	}()
	return result
}

func TestAnswersFindTheirQuestions(t *testing.T) {
	a, g := newFakeGuest(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go g.send(execproto.Hello{Ready: true, Hostname: "n", BootID: "1"})
	if hello, err := a.ready(ctx); err != nil || hello.Hostname != "n" {
		t.Fatalf("%+v, %v", hello, err)
	}
	one, two := ask(ctx, a, "one"), ask(ctx, a, "two")
	first, second := g.receive(), g.receive()
	g.send(execproto.Response{ID: second.ID, Stdout: execproto.Bytes(second.Argv[0])})
	g.send(execproto.Response{ID: 999}) // nobody asked
	g.send(execproto.Response{ID: first.ID, Stdout: execproto.Bytes(first.Argv[0])})
	if got := <-one; got.err != nil || string(got.resp.Stdout) != "one" {
		t.Errorf("one: %+v", got)
	}
	if got := <-two; got.err != nil || string(got.resp.Stdout) != "two" {
		t.Errorf("two: %+v", got)
	}
}

func TestRebornGuestOwesNothing(t *testing.T) {
	a, g := newFakeGuest(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	g.send(execproto.Hello{Ready: true, BootID: "1"})
	asked := ask(ctx, a, "reboot")
	g.receive()
	// The same guest greeting again is no reboot.
	g.send(execproto.Hello{Ready: true, BootID: "1"})
	if _, err := g.conn.Write([]byte(`{"id":1,"exi`)); err != nil { // cut off by the reset
		t.Fatal(err)
	}
	if _, err := g.conn.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	g.send(execproto.Hello{Ready: true, BootID: "2"})
	if got := <-asked; !errors.Is(got.err, ErrGuestGone) {
		t.Errorf("the command that the reboot interrupted: %+v", got)
	}
	if hello, err := a.ready(ctx); err != nil || hello.BootID != "2" {
		t.Errorf("after the reboot: %+v, %v", hello, err)
	}
	// QEMU ends.
	asked = ask(ctx, a, "off")
	g.receive()
	g.conn.Close()
	if got := <-asked; !errors.Is(got.err, ErrGuestGone) {
		t.Errorf("the command that the end interrupted: %+v", got)
	}
	if _, err := a.ready(ctx); !errors.Is(err, errMachineOff) {
		t.Errorf("ready on a machine that is off: %v", err)
	}
	if got := <-ask(ctx, a, "late"); !errors.Is(got.err, errMachineOff) {
		t.Errorf("a command on a machine that is off: %+v", got)
	}
}

// A guest that stopped reading its port does not hold up a test, and once it
// reads again it finds whole lines.
func TestSilentGuest(t *testing.T) {
	a, g := newFakeGuest(t)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, errWaited)
	defer cancel()
	for range 2 { // the second one waits for the first one's turn
		if got := <-ask(ctx, a, "x"); !errors.Is(got.err, errWaited) {
			t.Errorf("%+v", got)
		}
	}
	asked := ask(t.Context(), a, "y")
	if line, err := g.lines.ReadString('\n'); err != nil || strings.TrimSpace(line) != "" {
		t.Fatalf("the rest of the torn line is %q (%v)", line, err)
	}
	req := g.receive()
	g.send(execproto.Response{ID: req.ID})
	if got := <-asked; got.err != nil || req.Argv[0] != "y" {
		t.Errorf("%+v", got)
	}
}

func TestExitErrorSaysWhat(t *testing.T) {
	err := &ExitError{Argv: []string{"ls", "/x"}, Response: execproto.Response{Exit: 2, Stderr: execproto.Bytes("ls: no /x\n")}}
	if got := err.Error(); got != "ls /x: exit 2: ls: no /x" {
		t.Error(got)
	}
	err.Response = execproto.Response{Exit: -1, Error: "ran out of time", Stderr: execproto.Bytes(strings.Repeat("y", 9999))}
	if got := err.Error(); !strings.HasPrefix(got, "ls /x: ran out of time: yyy") || len(got) > 500 {
		t.Error(got)
	}
}
