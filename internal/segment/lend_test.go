package segment

import (
	"context"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestRefusals: what is no TCP connection, or none at all, is answered by an error or a
// hang-up; nothing that came stays open, and the next is served.
func TestRefusals(t *testing.T) {
	const socket = "@viver-refusals-test"
	ctx, end := context.WithCancel(t.Context())
	l, err := listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error)
	go func() { served <- serve(ctx, l, uint32(os.Getuid()), slog.New(slog.DiscardHandler)) }()
	ask := func(fds ...int) string {
		t.Helper()
		conn, err := net.Dial("unixpacket", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		if _, _, err := conn.(*net.UnixConn).WriteMsgUnix([]byte{0}, rights, nil); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, maxAnswer)
		n, _ := conn.Read(answer)
		return string(answer[:n])
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	before := openFiles(t)
	if got := ask(); got != "" {
		t.Errorf("nothing lent: %q", got)
	}
	if got := ask(pair[0], pair[1]); got != "" {
		t.Errorf("two lent: %q", got)
	}
	for name, fd := range map[string]int{"a file": int(null.Fd()), "another socket": pair[0]} {
		if got := ask(fd); !strings.Contains(got, "no TCP connection") {
			t.Errorf("%s: %q", name, got)
		}
	}
	end()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if after := openFiles(t); after > before {
		t.Errorf("%d files are open, before %d", after, before)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// TestWhoMayAsk: the user and root may.
func TestWhoMayAsk(t *testing.T) {
	for uid, want := range map[uint32]bool{0: true, 7: true, 8: false} {
		if got := mayAsk(&unix.Ucred{Uid: uid}, 7); got != want {
			t.Errorf("user %d: %v, want %v", uid, got, want)
		}
	}
}
