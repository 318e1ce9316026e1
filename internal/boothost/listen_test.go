package boothost

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPerClient: one address that opens more connections than it may is hung
// up on, others are not, and a closed connection gives its place back, once.
func TestPerClient(t *testing.T) {
	inner, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limit(inner, 10, 2)
	defer l.Close()
	accepted := make(chan net.Conn, 10)
	go func() {
		defer close(accepted)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	dial := func(from string) net.Conn {
		t.Helper()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		conn, err := d.DialContext(t.Context(), "tcp4", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	// stays waits for the server's side of conn, which refused has none.
	stays := func(conn net.Conn) net.Conn {
		t.Helper()
		server := <-accepted
		if server == nil || server.RemoteAddr().String() != conn.LocalAddr().String() {
			t.Fatalf("accepted %v, want %v", server, conn.LocalAddr())
		}
		t.Cleanup(func() { server.Close() })
		return server
	}
	refused := func(conn net.Conn) {
		t.Helper()
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		var timeout net.Error
		if _, err := conn.Read(make([]byte, 1)); err == nil || errors.As(err, &timeout) && timeout.Timeout() {
			t.Fatalf("the connection was not ended: %v", err)
		}
	}

	first := stays(dial("127.0.0.2"))
	stays(dial("127.0.0.2"))
	refused(dial("127.0.0.2"))
	stays(dial("127.0.0.3"))

	first.Close()
	first.Close()
	stays(dial("127.0.0.2"))
	refused(dial("127.0.0.2"))

	l.Close()
	if conn, ok := <-accepted; ok {
		t.Errorf("accepted %v after the end", conn.RemoteAddr())
	}
}

// TestLimitForAll: when as many connections are open as may be, the next waits until one
// is closed, and the listener can be closed meanwhile.
func TestLimitForAll(t *testing.T) {
	inner, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limit(inner, 1, 2)
	defer l.Close()
	for range 2 {
		conn, err := net.Dial("tcp4", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	next := make(chan error)
	accept := func() {
		_, err := l.Accept()
		next <- err
	}
	go accept()
	select {
	case <-next:
		t.Fatal("the second connection did not wait")
	case <-time.After(50 * time.Millisecond):
	}
	first.Close()
	if err := <-next; err != nil {
		t.Fatal(err)
	}
	go accept()
	l.Close()
	if err := <-next; !errors.Is(err, net.ErrClosed) {
		t.Errorf("the closed listener: %v", err)
	}
}

// TestBulk: downloads have the lowest priority.
func TestBulk(t *testing.T) {
	inner, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := bulk{inner.(*net.TCPListener)}
	defer l.Close()
	client, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	got := -1
	if err := raw.Control(func(fd uintptr) {
		got, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PRIORITY)
	}); err != nil || got != priorityBulk {
		t.Errorf("priority %d, want %d (%v)", got, priorityBulk, err)
	}
}

// TestHTTPSlowBody: a request with a body that never comes does not
// keep its connection.
func TestHTTPSlowBody(t *testing.T) {
	server := testServer(t, testConfig(t))
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /boot.ipxe HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(10 * httpBodyTime))
	if _, err := io.Copy(io.Discard, conn); err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("the connection is open after %v", 6*httpHeaderTime)
		}
	}
}
