package segment

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/netbed/netbedtest"
)

// listening is listen for a test.
func listening(t *testing.T, socket string) *net.UnixListener {
	t.Helper()
	l, err := listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// served runs the server of a test and returns how it ends.
func served(ctx context.Context, l *net.UnixListener) <-chan error {
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, l, uint32(os.Getuid()), slog.New(slog.DiscardHandler)) }()
	return ended
}

// TestNetnsWhoHasNoRight: a thread without capabilities, such as one of the agent's, cannot
// enlarge segments, and gets it done.
func TestNetnsWhoHasNoRight(t *testing.T) {
	netbedtest.Need(t)
	if !netbedtest.Enter(t) {
		return
	}
	const socket = "@viver-no-right-test"
	loopbackUp(t)
	ctx, end := context.WithCancel(t.Context())
	ended := served(ctx, listening(t, socket))
	_, conn := connected(t)
	before := segmentOf(t, conn)
	type results struct{ direct, lent error }
	did := make(chan results)
	go func() {
		runtime.LockOSThread() // which ends with us: it has lost its capabilities
		if err := dropCapabilities(); err != nil {
			did <- results{err, err}
			return
		}
		did <- results{directly(t, conn), Lend(socket, conn)}
	}()
	if r := <-did; !errors.Is(r.direct, unix.EPERM) || r.lent != nil {
		t.Errorf("by itself: %v, want EPERM; lent: %v", r.direct, r.lent)
	}
	if after := segmentOf(t, conn); before > 536 || after < 1400 {
		t.Errorf("segments of %d bytes before, of %d afterwards", before, after)
	}
	end()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// directly enlarges the segments of a connection without a server.
func directly(t *testing.T, conn *net.TCPConn) (err error) {
	t.Helper()
	raw, rawErr := conn.SyscallConn()
	if rawErr != nil {
		return rawErr
	}
	rawErr = raw.Control(func(fd uintptr) { err = enlarge(int(fd)) })
	return errors.Join(rawErr, err)
}

// TestWhatHangsDoesNotKeepTheServer: a daemon that ends does not wait for a socket that
// lingers when it is closed.
func TestWhatHangsDoesNotKeepTheServer(t *testing.T) {
	const socket = "@viver-lingers-test"
	l := listening(t, socket)
	client, conn := connected(t) // the client reads nothing
	defer client.Close()
	if err := conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Write(make([]byte, 64<<20)); err == nil {
		t.Fatalf("%d bytes fit into buffers", n)
	}
	if err := conn.SetLinger(3600); err != nil {
		t.Fatal(err)
	}
	server, err := net.Dial("unixpacket", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	lend(t, server.(*net.UnixConn), conn)
	ctx, end := context.WithCancel(t.Context())
	ended := served(ctx, l)
	if _, err := server.Read(make([]byte, maxAnswer)); err != nil {
		t.Fatal(err)
	}
	end()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("the server waits for the socket")
	}
}

// lend sends a connection on its way and closes it here, so that it is the server that
// closes it last.
func lend(t *testing.T, server *net.UnixConn, conn *net.TCPConn) {
	t.Helper()
	file, err := conn.File() // a copy, which closes without waiting as long as there is another
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := server.WriteMsgUnix([]byte{0}, unix.UnixRights(int(file.Fd())), nil); err != nil {
		t.Fatal(err)
	}
	file.Close()
	conn.Close()
}

func loopbackUp(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	r.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, r); err != nil {
		t.Fatal(err)
	}
}

func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&header, &none[0])
}

// connected returns both ends of a connection, the first of which announced small
// segments.
func connected(t *testing.T) (client, accepted *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		ctlErr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 536) })
		return errors.Join(ctlErr, err)
	}}
	one, err := d.DialContext(t.Context(), "tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { one.Close() })
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	return one.(*net.TCPConn), other.(*net.TCPConn)
}

func segmentOf(t *testing.T, conn *net.TCPConn) (size int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var getErr error
	err = raw.Control(func(fd uintptr) { size, getErr = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) })
	if err := errors.Join(err, getErr); err != nil {
		t.Fatal(err)
	}
	return size
}
