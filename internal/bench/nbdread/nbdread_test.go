package nbdread

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"viver.lan/internal/nbd"
)

type memory struct {
	data  []byte
	block bool // answers nothing
}

func (m memory) Size() int64 { return int64(len(m.data)) }

func (m memory) ReadAt(ctx context.Context, p []byte, off int64) error {
	if m.block {
		<-ctx.Done()
		return ctx.Err()
	}
	time.Sleep(time.Duration(rand.IntN(200)) * time.Microsecond) // answers overtake each other
	copy(p, m.data[off:])
	return nil
}

// connect returns a client of a server that exports m.
func connect(t *testing.T, m memory) *Client {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- nbd.Listen(ctx, l, []nbd.Export{{Name: "a", Backend: m}}, nbd.Options{}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return c
}

func TestReaderReadsEachByteOnce(t *testing.T) {
	data := make([]byte, 40*Size+1000)
	rand.NewChaCha8([32]byte{1}).Read(data)
	for _, from := range []int64{0, 7 * Size, 40 * Size} {
		var got atomic.Int64
		if err := connect(t, memory{data: data}).ReadAll(t.Context(), from, data, &got); err != nil {
			t.Errorf("from %d: %v", from, err)
		}
		if got.Load() != int64(len(data)) {
			t.Errorf("from %d: read %d bytes of %d", from, got.Load(), len(data))
		}
	}
}

func TestReaderSeesAWrongByte(t *testing.T) {
	data := make([]byte, 4*Size)
	want := bytes.Clone(data)
	want[3*Size+17] = 1
	err := connect(t, memory{data: data}).ReadAll(t.Context(), 0, want, new(atomic.Int64))
	if err == nil || !strings.Contains(err.Error(), "not those of the file") {
		t.Errorf("a wrong byte: %v", err)
	}
	if err := connect(t, memory{data: data}).ReadAll(t.Context(), 0, want[1:], new(atomic.Int64)); err == nil {
		t.Error("a wrong size was not seen")
	}
}

func TestReaderEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	data := make([]byte, Size)
	err := connect(t, memory{data: data, block: true}).ReadAll(ctx, 0, data, new(atomic.Int64))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want the deadline", err)
	}
}

func TestComparer(t *testing.T) {
	c := &Comparer{Want: []byte("abcdef"), Got: new(atomic.Int64)}
	for _, part := range []string{"ab", "cdef"} {
		if _, err := c.Write([]byte(part)); err != nil {
			t.Errorf("%q: %v", part, err)
		}
	}
	if _, err := c.Write([]byte("g")); err == nil {
		t.Error("more than the file was taken")
	}
	c.Got.Store(0)
	if _, err := c.Write([]byte("abx")); err == nil {
		t.Error("a wrong byte was taken")
	}
}
