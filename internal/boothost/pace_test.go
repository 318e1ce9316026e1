package boothost

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"
)

// testClock goes only when it is told to.
type testClock struct{ at time.Time }

func (c *testClock) now() time.Time       { return c.at }
func (c *testClock) pass(d time.Duration) { c.at = c.at.Add(d) }

// slowFile is a file of which every read takes time.
type slowFile struct {
	nopCloser
	clock *testClock
	takes time.Duration
}

func (s *slowFile) Read(p []byte) (int, error) {
	s.clock.pass(s.takes)
	return s.nopCloser.Read(p)
}

// slowClient asks for a file, and takes a while for each block.
type slowClient struct {
	clock *testClock
	takes time.Duration
}

func (c *slowClient) Name() string { return "file" }

func (c *slowClient) From() netip.AddrPort { return netip.MustParseAddrPort("10.77.0.5:2070") }

func (c *slowClient) Send(_ context.Context, r io.Reader, _ int64) (n int64, err error) {
	for block := make([]byte, 1024); err == nil; c.clock.pass(c.takes) {
		var got int
		got, err = io.ReadFull(r, block)
		n += int64(got)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// TestTFTPSlowest: who takes each block just before that block's own deadline is
// not served to the end; a slow client is, and one of a slow file.
func TestTFTPSlowest(t *testing.T) {
	const size = 4 << 20
	for _, c := range []struct {
		block, source time.Duration
		want          error
	}{
		{0, 0, nil},
		{200 * time.Millisecond, 0, nil}, // 5 KiB/s
		{0, time.Minute, nil},
		{300 * time.Millisecond, 0, errTooSlow},
		{300 * time.Millisecond, time.Minute, errTooSlow},
		{23 * time.Second, 0, errTooSlow},
	} {
		clock := &testClock{at: time.Unix(0, 0)}
		s := newTFTPServer(newHost(t, testConfig(t)))
		s.slowest.now = clock.now
		s.host.catalog.add("file", resource{size: size, tftp: true, open: func(context.Context) (io.ReadSeekCloser, error) {
			return &slowFile{nopCloser{bytes.NewReader(make([]byte, size))}, clock, c.source}, nil
		}})
		if err := s.read(t.Context(), &slowClient{clock, c.block}); !errors.Is(err, c.want) {
			t.Errorf("%v for each block, %v for each read of the file: %v, want %v", c.block, c.source, err, c.want)
		}
		client := clock.at.Sub(time.Unix(0, 0)) - size/1024*c.source
		if most := size/tftpSlowest*time.Second + slowGrace + c.source + c.block; client > most {
			t.Errorf("%v for each block: ended after %v, want %v at most", c.block, client, most)
		}
	}
}

// TestHTTPSlowest: a client that always takes a little, and never stalls,
// does not keep its place.
func TestHTTPSlowest(t *testing.T) {
	s := newHTTPServer(newHost(t, testConfig(t)))
	s.slowest.rate, s.slowest.grace = 64<<20, 100*time.Millisecond
	s.host.catalog.add("file", make([]byte, 64<<20)) // more than all buffers on the way
	server := httptest.NewUnstartedServer(s)
	ended := make(chan struct{})
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			close(ended)
		}
	}
	server.Start()
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.(*net.TCPConn).SetReadBuffer(16 << 10); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "GET /file HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	tooLong := time.After(patience)
	for {
		_, _ = conn.Read(make([]byte, 640))
		select {
		case <-ended:
			return
		case <-tooLong:
			t.Fatalf("a client that takes 64 KiB/s is served for more than %v", patience)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
