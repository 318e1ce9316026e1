package tftp

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// patience is an upper bound, never reached when all is well.
const patience = 2 * time.Minute

// serve runs a server on the loopback device until the test ends.
func serve(t *testing.T, l Limits, handle func(context.Context, *Transfer) error) (at netip.AddrPort) {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Limits: l, Handle: handle, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Open: func(_ context.Context, local netip.Addr) (Conn, error) {
			return net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)))
		}}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, conn) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// machine is a client's socket.
type machine struct {
	t *testing.T
	*net.UDPConn
}

func newMachine(t *testing.T, ip ...byte) machine {
	t.Helper()
	if ip == nil {
		ip = []byte{127, 0, 0, 1}
	}
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: ip})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return machine{t, conn}
}

func (m machine) send(to netip.AddrPort, packet string) {
	m.t.Helper()
	if _, err := m.WriteToUDPAddrPort([]byte(packet), to); err != nil {
		m.t.Fatal(err)
	}
}

func (m machine) receive() (packet string, from netip.AddrPort) {
	m.t.Helper()
	buf := make([]byte, 2000)
	_ = m.SetReadDeadline(time.Now().Add(patience))
	n, from, err := m.ReadFromUDPAddrPort(buf)
	if err != nil {
		m.t.Fatal(err)
	}
	return string(buf[:n]), from
}

func read(name string) string { return "\x00\x01" + name + "\x00octet\x00" }

func sends(text string) func(context.Context, *Transfer) error {
	return func(ctx context.Context, asked *Transfer) error {
		_, err := asked.Send(ctx, strings.NewReader(text), int64(len(text)))
		return err
	}
}

// A transfer has a port of its own; with options it begins with them.
func TestServerSends(t *testing.T) {
	at := serve(t, limits(), sends("hello"))
	m := newMachine(t)
	m.send(at, read("a")+"tsize\x000\x00unknown\x001\x00")
	packet, from := m.receive()
	if packet != "\x00\x06tsize\x005\x00" || from == at || from.Addr() != at.Addr() {
		t.Errorf("%q from %v", packet, from)
	}
	m.send(from, "\x00\x04\x00\x00")
	if packet, _ := m.receive(); packet != "\x00\x03\x00\x01hello" {
		t.Errorf("%q", packet)
	}
	m.send(from, "\x00\x04\x00\x01")
}

// What is no request that can be answered is answered with the reason, or not at
// all, and takes no place.
func TestServerRefuses(t *testing.T) {
	var transfers atomic.Int64
	l := limits()
	l.PerClient = 1
	at := serve(t, l, func(ctx context.Context, asked *Transfer) error {
		transfers.Add(1)
		switch asked.Name() {
		case "panics":
			panic("of a test")
		case "missing":
			return &Error{FileNotFound, "file not found"}
		}
		return nil
	})
	m := newMachine(t)
	for _, c := range []struct{ packet, want string }{
		{"\x00\x02a\x00octet\x00", "\x00\x05\x00\x02this server takes no files\x00"},
		{"\x00\x01a\x00mail\x00", "\x00\x05\x00\x04unknown mode\x00"},
		{read("missing"), "\x00\x05\x00\x01file not found\x00"},
		{read("panics"), "\x00\x05\x00\x00internal error\x00"},
	} {
		m.send(at, "\x00\x04\x00\x01") // none of these is answered
		m.send(at, "\x00\x05\x00\x01no\x00")
		m.send(at, "x")
		m.send(at, "")
		for m.send(at, c.packet); ; m.send(at, c.packet) {
			got, _ := m.receive()
			if strings.HasSuffix(got, "busy, try again\x00") { // the one before is leaving
				continue
			}
			if got != c.want {
				t.Errorf("%q: answered %q", c.packet, got)
			}
			break
		}
	}
	if n := transfers.Load(); n != 2 {
		t.Errorf("%d transfers", n)
	}
}

// One client that asks again and again, and many clients, take a bounded number of
// places. A request that is repeated takes none and is not answered twice.
func TestPlacesAreBounded(t *testing.T) {
	l := limits()
	l.Timeout = time.Hour // nothing is sent twice by itself
	held := make(chan string, 100)
	at := serve(t, l, func(ctx context.Context, asked *Transfer) error {
		held <- asked.Name()
		return sends("hello")(ctx, asked)
	})
	const busy = "\x00\x05\x00\x00busy, try again\x00"
	greedy := newMachine(t)
	for _, name := range []string{"a", "a", "a", "b", "a", "b", "c"} {
		greedy.send(at, read(name))
	}
	var ports []netip.AddrPort
	for range l.PerClient {
		packet, from := greedy.receive()
		if packet == busy {
			packet, from = greedy.receive()
		}
		if packet != "\x00\x03\x00\x01hello" {
			t.Errorf("answered %q", packet)
		}
		ports = append(ports, from)
	}
	if a, b := <-held, <-held; a == b || a+b != "ab" && a+b != "ba" {
		t.Errorf("transfers of %q and %q", a, b)
	}
	for n := range byte(l.Transfers - l.PerClient) {
		m := newMachine(t, 127, 0, 1, 1+n)
		m.send(at, read("a"))
		if packet, _ := m.receive(); packet == busy {
			t.Errorf("client %d is refused", n)
		}
	}
	late := newMachine(t, 127, 0, 2, 1)
	late.send(at, read("a"))
	if packet, _ := late.receive(); packet != busy {
		t.Errorf("one too many gets %q", packet)
	}
	for _, port := range ports {
		greedy.send(port, "\x00\x04\x00\x01")
	}
	for end := time.Now().Add(patience); ; {
		late.send(at, read("b"))
		if packet, _ := late.receive(); packet != busy {
			break
		}
		if time.Now().After(end) {
			t.Fatal("a place is not given back")
		}
	}
	if n := len(held); n != l.Transfers-l.PerClient+1 {
		t.Errorf("%d more transfers", n)
	}
}

// The same request from the same port is a new one when the client has answered.
func TestRequestComesAgain(t *testing.T) {
	at := serve(t, limits(), sends(string(bytes.Repeat([]byte("x"), 600))))
	m := newMachine(t)
	m.send(at, read("a"))
	_, first := m.receive()
	m.send(first, "\x00\x04\x00\x01")
	m.receive()
	m.send(at, read("a"))
	for end := time.Now().Add(patience); ; {
		if _, second := m.receive(); second != first {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the second request is not answered")
		}
	}
}
