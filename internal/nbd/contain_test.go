package nbd

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/contain"
	"viver.lan/internal/journal"
)

// faulty panics when it is asked for its size.
type faulty struct{ volume }

func (faulty) Size() int64 { panic("a fault of the size") }

// What panics costs the client that finds it the connection, and nobody else
// theirs: neither in the handshake nor in a read, which runs beside.
func TestAFaultEndsOneClient(t *testing.T) {
	var log journal.Journal
	var faults contain.Counter
	o := Options{Log: faults.Watch(slog.New(slog.NewTextHandler(&log, nil)))}
	socket := listen(t, []Export{{Name: "root", Backend: volume{size: 1 << 20}}, {Name: "bad", Backend: faulty{}}}, o)
	enter := func(export string) (answer int) {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write(hello(3, option(1, []byte(export)))); err != nil {
			t.Fatal(err)
		}
		answer, _ = io.ReadFull(conn, make([]byte, 18+8+2)) // greeting, size, flags
		return answer
	}
	for range 3 {
		if n := enter("bad"); n != 18 {
			t.Errorf("%d bytes after the fault, want the greeting's 18", n)
		}
		if n := enter("root"); n != 28 {
			t.Errorf("another client, afterwards, gets %d bytes", n)
		}
	}
	for range 1000 { // it is counted after the connection has ended
		if faults.Total() == 3 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if n := strings.Count(log.String(), "a fault of the size"); n != 1 || faults.Total() != 3 {
		t.Errorf("logged %d times, counted %d, want 1 and 3:\n%s", n, faults.Total(), log.String())
	}

	for _, broken := range []struct {
		hook func(context.Context, int64, int) error
		here func([]byte, int64) bool
	}{
		{hook: func(context.Context, int64, int) error { panic("a fault of a read") }},
		{here: func([]byte, int64) bool { panic("a fault of a read of what is here") }},
	} {
		o.Here = broken.here
		c := serve(t, t.Context(), volume{size: 1 << 20, hook: broken.hook}, o)
		c.send(request{length: 4096})
		var contained *contain.Error
		if err := <-c.done; !errors.As(err, &contained) || contained.What != "nbd read" {
			t.Errorf("the session ends with %v", err)
		}
	}
}
