package boothost

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"viver.lan/internal/manifest"
	"viver.lan/internal/netbed"
	"viver.lan/internal/segment"
)

// TestNetnsSegments: GRUB, which announces no segment size, gets segments as large as
// the link's; who announces small ones gets small ones.
func TestNetnsSegments(t *testing.T) {
	if !inNetns(t) {
		return
	}
	const socket = "@viver-segments-test"
	ctx, end := context.WithCancel(t.Context())
	served := make(chan error)
	go func() { served <- segment.Serve(ctx, socket, 65521, slog.New(slog.DiscardHandler)) }()
	b := newBench(t, func(cfg *Config) {
		cfg.EnlargeSegments = func(conn *net.TCPConn) error { return segment.Lend(socket, conn) }
	})
	b.at("ip", "addr", "add", "10.77.0.50/16", "dev", "pc")
	file := b.image.files[manifest.Kernel]
	// segments fetches the file and returns in how many segments it came.
	segments := func(agent string) int {
		t.Helper()
		before := b.sentSegments()
		err := netbed.In(client, func() error {
			body, err := get(t.Context(), "/boot/"+b.image.manifest.Infohash.String()+"/"+manifest.Kernel, agent)
			if err == nil && !bytes.Equal(body, file) {
				t.Errorf("%s got %d bytes, want %d, or others", agent, len(body), len(file))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return b.sentSegments() - before
	}
	small, large := segments("curl/8"), segments("GRUB 2.12-9")
	if want := len(file) / smallSegment; small < want || large > small*2/3 {
		t.Errorf("%d bytes went in %d segments to who announces %d, in %d to GRUB", len(file), small, smallSegment, large)
	}
	end()
	if err := <-served; err != nil {
		t.Error(err)
	}
	if got := segments("GRUB 2.12-9"); got < len(file)/smallSegment {
		t.Errorf("with nobody who may enlarge them, %d segments", got)
	}
}

// sentSegments is how many TCP segments the host has sent.
func (b *bench) sentSegments() int {
	b.t.Helper()
	n, err := strconv.Atoi(strings.Fields(b.run("nstat", "-asz", "TcpOutSegs"))[2])
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// smallSegment is what the client announces, in bytes. Nothing announced is the same.
const smallSegment = 536

// get fetches a file of the host with a connection of its own.
func get(ctx context.Context, name, agent string) ([]byte, error) {
	conn, err := dialAnnouncing(ctx, smallSegment)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+selfIP+name, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("User-Agent", agent)
	if err := r.Write(conn); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// dialAnnouncing connects to the host and announces a maximum segment size.
func dialAnnouncing(ctx context.Context, size int) (net.Conn, error) {
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		ctlErr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, size) })
		if ctlErr != nil {
			return ctlErr
		}
		return err
	}}
	return d.DialContext(ctx, "tcp4", net.JoinHostPort(selfIP, "80"))
}
