package blockdaemon

import (
	"context"
	"errors"
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

func TestIsReady(t *testing.T) {
	for notice, want := range map[string]bool{
		"READY=1": true, "STATUS=Startup finished in 3s.\nREADY=1\n": true,
		"": false, "READY=10": false, "STATUS=READY=1": false, "STOPPING=1": false,
	} {
		if got := isReady([]byte(notice)); got != want {
			t.Errorf("%q: %v, want %v", notice, got, want)
		}
	}
}

func FuzzNotice(f *testing.F) {
	f.Add([]byte("READY=1"), unix.UnixCredentials(&unix.Ucred{Pid: 1}))
	f.Add([]byte("STATUS=\n\n"), []byte{})
	f.Fuzz(func(t *testing.T, notice, credentials []byte) {
		isReady(notice)
		sender(credentials)
	})
}

// Whoever is not process 1 is not believed.
func TestOnlyTheInitIsBelieved(t *testing.T) {
	const socket = "@viver-ready-test"
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- awaitReady(ctx, socket) }()
	var conn net.Conn
	for conn == nil {
		conn, _ = net.Dial("unixgram", socket) // until it listens
	}
	defer conn.Close()
	for range 3 { // a datagram waits until the one before it was taken, more or less
		if _, err := conn.Write([]byte("READY=1")); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("this test was taken for the init")
	} else if !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if got := sender(unix.UnixCredentials(&unix.Ucred{Pid: 1})); got != 1 {
		t.Errorf("sender %d of the init's message", got)
	}
}
