package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// volume is a backend of recognisable bytes; hook, when set, runs before each
// read and may fail it.
type volume struct {
	size int64
	hook func(ctx context.Context, off int64, length int) error
}

func (v volume) Size() int64 { return v.size }

func (v volume) ReadAt(ctx context.Context, p []byte, off int64) error {
	if v.hook != nil {
		if err := v.hook(ctx, off, len(p)); err != nil {
			return err
		}
	}
	fill(p, off)
	return nil
}

// fill writes the volume's bytes: each 8-byte word holds a mix of its offset.
func fill(p []byte, off int64) {
	for i := range p {
		at := uint64(off) + uint64(i)
		p[i] = byte((at / 8 * 0x9e3779b97f4a7c15) >> (8 * (at % 8)))
	}
}

// client speaks the transmission phase from the other side.
type client struct {
	t    *testing.T
	conn net.Conn
	done chan error // what Serve returned
}

func serve(t *testing.T, ctx context.Context, b Backend, o Options) *client {
	near, far := net.Pipe()
	c := &client{t: t, conn: near, done: make(chan error, 1)}
	go func() { c.done <- Serve(ctx, far, b, o) }()
	t.Cleanup(func() { near.Close() })
	return c
}

func (c *client) send(requests ...request) {
	c.t.Helper()
	for _, r := range requests {
		if _, err := c.conn.Write(wire(r)); err != nil {
			c.t.Fatalf("send %+v: %v", r, err)
		}
	}
}

// reply reads one reply; length is how much data a success carries.
func (c *client) reply(length int) (cookie uint64, e errno, data []byte) {
	c.t.Helper()
	var h [replySize]byte
	if _, err := io.ReadFull(c.conn, h[:]); err != nil {
		c.t.Fatalf("read reply: %v", err)
	}
	if magic := binary.BigEndian.Uint32(h[:]); magic != 0x67446698 {
		c.t.Fatalf("reply begins with %#x", magic)
	}
	e, cookie = errno(binary.BigEndian.Uint32(h[4:])), binary.BigEndian.Uint64(h[8:])
	if e == success && length > 0 {
		data = make([]byte, length)
		if _, err := io.ReadFull(c.conn, data); err != nil {
			c.t.Fatalf("read data: %v", err)
		}
	}
	return cookie, e, data
}

func TestServeAnswersAndGoesOn(t *testing.T) {
	const size = 1 << 20
	broken := errors.New("the medium is scratched")
	c := serve(t, t.Context(), volume{size: size, hook: func(_ context.Context, off int64, _ int) error {
		if off == 8192 {
			return broken
		}
		return nil
	}}, Options{})
	for i, step := range []struct {
		r       request
		payload int
		want    errno
	}{
		{request{length: 4096}, 0, success},
		{request{offset: size - 5, length: 5}, 0, success},
		{request{offset: size - 5, length: 6}, 0, einval},
		{request{command: 1, length: 70000}, 70000, eperm}, // its data is skipped
		{request{offset: 8192, length: 512}, 0, eio},       // after EIO the connection lives
		{request{command: 7, length: 512}, 0, einval},
		{request{command: 3}, 0, success},
		{request{offset: 12345, length: 300000}, 0, success},
	} {
		step.r.cookie = uint64(i) << 56
		c.send(step.r)
		if step.payload > 0 {
			c.conn.Write(make([]byte, step.payload))
		}
		carries := 0
		if step.r.command == 0 {
			carries = int(step.r.length)
		}
		cookie, e, data := c.reply(carries)
		if cookie != step.r.cookie || e != step.want {
			t.Fatalf("request %d: cookie %#x errno %d, want %#x and %d", i, cookie, e, step.r.cookie, step.want)
		}
		want := make([]byte, len(data))
		fill(want, int64(step.r.offset))
		if !bytes.Equal(data, want) {
			t.Fatalf("request %d: wrong data", i)
		}
	}
	c.send(request{command: 2})
	if err := <-c.done; err != nil {
		t.Errorf("after a disconnect Serve returned %v", err)
	}
}

func TestStructuredReplies(t *testing.T) {
	c := serve(t, t.Context(), volume{size: 1000, hook: func(_ context.Context, off int64, _ int) error {
		if off == 7 {
			return errors.New("the medium is scratched")
		}
		return nil
	}}, Options{Structured: true})
	data := make([]byte, 5)
	fill(data, 995)
	for _, step := range []struct {
		r    request
		want []byte
	}{
		{request{offset: 995, length: 5, cookie: 0x0102}, append([]byte{0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 13, 0, 0, 0, 0, 0, 0, 3, 0xe3}, data...)},
		{request{offset: 995, length: 6, cookie: 3}, []byte{0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 6, 0, 0, 0, 22, 0, 0}},
		{request{offset: 7, length: 6, cookie: 4}, []byte{0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 6, 0, 0, 0, 5, 0, 0}},
		{request{command: 3, cookie: 5}, []byte{0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5}},
	} {
		c.send(step.r)
		got := make([]byte, len(step.want))
		if _, err := io.ReadFull(c.conn, got); err != nil || !bytes.Equal(got, step.want) {
			t.Fatalf("%+v: reply % x, %v, want % x", step.r, got, err, step.want)
		}
	}
	c.send(request{command: 2})
	if err := <-c.done; err != nil {
		t.Errorf("after a disconnect Serve returned %v", err)
	}
}

func TestServeEnds(t *testing.T) {
	for _, c := range []struct {
		name  string
		bytes []byte
		want  string
	}{
		{"wrong magic", make([]byte, requestSize), "where a request begins"},
		{"half a request", wire(request{length: 1})[:20], "unexpected EOF"},
		{"hang up", nil, "EOF"},
		{"huge write", wire(request{command: 1, length: 1 << 31}), "read-only"},
		{"half a write", append(wire(request{command: 1, length: 100}), 1, 2, 3), "skip the data"},
	} {
		cl := serve(t, t.Context(), volume{size: 1 << 20}, Options{})
		cl.conn.Write(c.bytes)
		cl.conn.Close()
		if err := <-cl.done; err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: Serve returned %v, want something with %q", c.name, err, c.want)
		}
	}
}

// Sixteen readers of a backend that answers nobody until all sixteen have
// come: a serial server would never get past the first.
func TestReadsAreConcurrent(t *testing.T) {
	const readers = 16
	var arrived sync.WaitGroup
	arrived.Add(readers)
	c := serve(t, t.Context(), volume{size: 1 << 20, hook: func(ctx context.Context, _ int64, _ int) error {
		arrived.Done()
		arrived.Wait()
		return nil
	}}, Options{})
	for i := range readers {
		c.send(request{cookie: uint64(i), offset: uint64(i) * 4096, length: 4096})
	}
	seen := map[uint64]bool{}
	for range readers {
		cookie, e, data := c.reply(4096)
		want := make([]byte, 4096)
		fill(want, int64(cookie)*4096)
		if e != success || seen[cookie] || !bytes.Equal(data, want) {
			t.Fatalf("cookie %d: errno %d, seen before: %v", cookie, e, seen[cookie])
		}
		seen[cookie] = true
	}
}

func TestInFlightIsBounded(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Options
		want int64
	}{
		{"by requests", Options{MaxRequests: 3}, 3},
		{"by bytes", Options{MaxBytes: 5 * 4096}, 5},
		{"one request longer than the limit goes alone", Options{MaxBytes: 100}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var now, most atomic.Int64
				release := make(chan struct{})
				cl := serve(t, t.Context(), volume{size: 1 << 20, hook: func(context.Context, int64, int) error {
					if n := now.Add(1); n > most.Load() {
						most.Store(n)
					}
					<-release
					now.Add(-1)
					return nil
				}}, c.o)
				go func() { // the server stops reading at its limit
					for i := range 40 {
						cl.conn.Write(wire(request{cookie: uint64(i), length: 4096}))
					}
				}()
				synctest.Wait()
				if now.Load() != c.want {
					t.Errorf("%d reads in flight, want %d", now.Load(), c.want)
				}
				for range 40 {
					release <- struct{}{}
					if _, e, _ := cl.reply(4096); e != success {
						t.Fatalf("errno %d", e)
					}
				}
				if most.Load() > c.want {
					t.Errorf("%d reads at once, want at most %d", most.Load(), c.want)
				}
				cl.conn.Close()
				<-cl.done
			})
		})
	}
}

// A peer that goes away, and a context that ends, both release the backend.
func TestEndReleasesTheBackend(t *testing.T) {
	for _, how := range []string{"hang up", "context", "disconnect"} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				c := serve(t, ctx, volume{size: 1 << 20, hook: func(ctx context.Context, _ int64, _ int) error {
					<-ctx.Done()
					return ctx.Err()
				}}, Options{})
				c.send(request{length: 4096}, request{length: 4096})
				synctest.Wait()
				reason := errors.New("going home")
				switch how {
				case "hang up":
					c.conn.Close()
				case "context":
					cancel(reason)
				case "disconnect": // a stalled backend does not hold it for ever
					c.send(request{command: 2})
				}
				err := <-c.done
				switch {
				case how == "hang up" && !errors.Is(err, io.EOF),
					how == "context" && !errors.Is(err, reason),
					how == "disconnect" && err != nil:
					t.Errorf("Serve returned %v", err)
				}
			})
		})
	}
}

// A disconnect is no excuse for leaving what was asked before unanswered.
func TestDisconnectDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := serve(t, t.Context(), volume{size: 1 << 20, hook: func(context.Context, int64, int) error {
			time.Sleep(time.Second)
			return nil
		}}, Options{})
		c.send(request{cookie: 7, length: 4096}, request{command: 2})
		if cookie, e, _ := c.reply(4096); cookie != 7 || e != success {
			t.Errorf("cookie %d errno %d", cookie, e)
		}
		if err := <-c.done; err != nil {
			t.Error(err)
		}
	})
}

func TestSlowReadsAreLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var observed time.Duration
		c := serve(t, t.Context(), volume{size: 1 << 20, hook: func(_ context.Context, off int64, _ int) error {
			if off == 4096 {
				time.Sleep(7 * time.Second)
			}
			return nil
		}}, Options{
			Log:     slog.New(slog.NewTextHandler(&log, nil)),
			Observe: func(_ int, took time.Duration) { observed = took },
		})
		c.send(request{length: 4096})
		c.reply(4096)
		synctest.Wait()
		if log.Len() != 0 {
			t.Errorf("a quick read was logged: %s", &log)
		}
		c.send(request{offset: 4096, length: 4096})
		time.Sleep(6 * time.Second)
		synctest.Wait()
		if !strings.Contains(log.String(), "still waits") || !strings.Contains(log.String(), "offset=4096") {
			t.Errorf("after 6 s the log says %q", log.String())
		}
		c.reply(4096)
		synctest.Wait()
		if !strings.Contains(log.String(), "is over") || observed != 7*time.Second {
			t.Errorf("observed %v, logged %q", observed, log.String())
		}
		c.conn.Close()
		<-c.done
	})
}

func TestClientThatTakesNoAnswerIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := serve(t, t.Context(), volume{size: 1 << 20}, Options{WriteTimeout: time.Second})
		c.send(request{length: 4096})
		if err := <-c.done; err == nil || !strings.Contains(err.Error(), "write reply") {
			t.Errorf("Serve returned %v", err)
		}
	})
}

// FuzzServe lets a peer send anything at all: Serve returns and never asks the
// backend for a byte outside the volume.
func FuzzServe(f *testing.F) {
	f.Add(true, append(wire(request{length: 512, cookie: 1}), wire(request{command: 2})...))
	f.Add(true, append(wire(request{command: 1, length: 3}), 1, 2, 3))
	f.Add(true, append(wire(request{command: 3}), wire(request{offset: 60000, length: 5536})...))
	f.Add(true, bytes.Repeat(wire(request{command: 9, length: 1 << 30}), 5))
	f.Add(false, make([]byte, 100))
	f.Fuzz(func(t *testing.T, structured bool, stream []byte) {
		const size = 64 << 10
		near, far := net.Pipe()
		go io.Copy(io.Discard, near)
		go func() {
			near.Write(stream)
			near.Close()
		}()
		Serve(t.Context(), far, volume{size: size, hook: func(_ context.Context, off int64, length int) error {
			if off < 0 || length <= 0 || off+int64(length) > size {
				t.Errorf("backend asked for %d bytes at %d", length, off)
			}
			return nil
		}}, Options{Structured: structured})
	})
}

// What is here is answered at once, also while another read waits; what is not goes to the
// backend.
func TestServeWhatIsHere(t *testing.T) {
	const size = 1 << 20
	come := make(chan struct{})
	c := serve(t, t.Context(), volume{size: size, hook: func(_ context.Context, off int64, _ int) error {
		if off < size/2 {
			return errors.New("it was here")
		}
		<-come
		return nil
	}}, Options{Here: func(p []byte, off int64) bool {
		fill(p, off) // also where it then says that it is not all here
		return off < size/2
	}})
	check := func(cookie uint64, offset int64) {
		t.Helper()
		got, e, data := c.reply(4096)
		want := make([]byte, 4096)
		if fill(want, offset); got != cookie || e != success || !bytes.Equal(data, want) {
			t.Errorf("cookie %d errno %d, want the bytes of %d; right bytes: %v", got, e, cookie, bytes.Equal(data, want))
		}
	}
	c.send(request{cookie: 1, offset: size / 2, length: 4096})
	for i := range uint64(3) {
		c.send(request{cookie: 2 + i, offset: i * 4096, length: 4096})
		check(2+i, int64(i)*4096)
	}
	close(come)
	check(1, size/2)
	c.send(request{command: 2})
	if err := <-c.done; err != nil {
		t.Errorf("after a disconnect Serve returned %v", err)
	}
}

// Requests that come together run beside each other, what is here too: a disk reads
// several at once.
func TestServeWhatIsHereSideBySide(t *testing.T) {
	var here atomic.Int32
	c := serve(t, t.Context(), volume{size: 1 << 20}, Options{Here: func([]byte, int64) bool {
		here.Add(1)
		return false
	}})
	var together []byte
	for i := range 4 {
		together = append(together, wire(request{cookie: uint64(i), offset: uint64(i) * 4096, length: 4096})...)
	}
	if _, err := c.conn.Write(together); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		c.reply(4096)
	}
	if n := here.Load(); n != 1 {
		t.Errorf("%d of 4 requests waited for each other, want the last one only", n)
	}
}
