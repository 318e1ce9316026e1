package nowait

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// pair returns the two ends of a TCP connection, the first of them as a Conn.
func pair(t *testing.T) (ours, peer net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if peer, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if ours, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ours.Close(); peer.Close() })
	ours = Wrap(ours)
	if _, ok := ours.(*Conn); !ok {
		t.Fatalf("a %T", ours)
	}
	return ours, peer
}

// More than a socket takes at once is moved, while the peer is slow to begin.
func TestConnMovesAll(t *testing.T) {
	ours, peer := pair(t)
	data := bytes.Repeat([]byte("some text "), 1<<20)
	sent := make(chan error, 1)
	go func() {
		_, err := ours.Write(data)
		sent <- err
	}()
	got := make([]byte, len(data))
	if _, err := io.ReadFull(peer, got); err != nil || !bytes.Equal(got, data) || <-sent != nil {
		t.Fatalf("the peer has other bytes, %v", err)
	}
	go func() {
		_, err := peer.Write(data)
		sent <- errors.Join(err, peer.Close())
	}()
	if got, err := io.ReadAll(ours); err != nil || !bytes.Equal(got, data) || <-sent != nil {
		t.Fatalf("%d bytes have come, %v", len(got), err)
	}
}

// What ends a read or a write of a net.Conn ends that of a Conn, by the same error.
func TestConnEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(ours, peer net.Conn) error
		want error
	}{
		{"a deadline", func(ours, _ net.Conn) error { return ours.SetReadDeadline(time.Now()) }, os.ErrDeadlineExceeded},
		{"it was closed here", func(ours, _ net.Conn) error { return ours.Close() }, net.ErrClosed},
		{"a reset", func(_, peer net.Conn) error { return errors.Join(peer.(*net.TCPConn).SetLinger(0), peer.Close()) }, syscall.ECONNRESET},
	} {
		ours, peer := pair(t)
		read := make(chan error, 1)
		go func() {
			_, err := ours.Read(make([]byte, 1))
			read <- err
		}()
		if err := c.do(ours, peer); err != nil {
			t.Fatal(err)
		}
		if err := <-read; !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	ours, _ := pair(t)
	if err := ours.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := ours.Write(make([]byte, 64<<20)); !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 {
		t.Errorf("of a write that nobody reads %d bytes went out, %v", n, err)
	}
}

func TestWithoutASocket(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if Wrap(a) != a {
		t.Error("a connection without a socket became another one")
	}
}

func TestReadAt(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("0123456789"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		off  int64
		size int
		want string
		err  error
	}{{3, 4, "3456", nil}, {0, 0, "", nil}, {8, 4, "89", io.EOF}, {20, 1, "", io.EOF}, {-1, 1, "", syscall.EINVAL}} {
		p := make([]byte, c.size)
		if n, err := ReadAt(f, p, c.off); string(p[:n]) != c.want || !errors.Is(err, c.err) {
			t.Errorf("%d bytes at %d: %q, %v", c.size, c.off, p[:n], err)
		}
	}
	f.Close()
	if _, err := ReadAt(f, make([]byte, 1), 0); err == nil {
		t.Error("a closed file was read")
	}
}
