// Package tftp serves files to read, by TFTP over IPv4 (RFC 1350) with its options
// for block size, time-out, size and windows of blocks (RFC 2347, 2348, 2349, 7440).
// It does not know where the files come from, and takes none.
//
// Bytes become requests and replies (packet.go), pure functions decide what is
// agreed on (options.go) and which block is next (window.go), and a loop for each
// transfer carries both to a port of its own (transfer.go).
//
// The invariant: who has not confirmed anything gets one packet at a time, and who
// has gets one window, which is bounded. The sender's address of a request may be
// forged, and what we send must not become a flood for whoever has that address.
package tftp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/ipv4"

	"viver.lan/internal/contain"
)

// maxPacket is more than any packet that we read, in bytes: requests have 512 at
// most (RFC 2347).
const maxPacket = 1500

// Limits are the bounds of what is served.
type Limits struct {
	// Transfers and PerClient are how many run at once, from all and from one
	// address.
	Transfers, PerClient int
	// Window is the longest window, in blocks. Each transfer keeps so many blocks,
	// and sends so many at once to a client whose network card may have room for
	// few.
	Window int
	// Block returns the longest block, in bytes, of a transfer that begins now.
	Block func() int
	// Timeout is how long to wait before packets are sent again for the first time,
	// unless the client asks for another time, and Retries how often that is done
	// without an answer.
	Timeout time.Duration
	Retries int
}

// Server answers read requests.
type Server struct {
	Limits Limits
	// Open opens a port for a transfer, at the address to which the request was
	// sent.
	Open func(ctx context.Context, local netip.Addr) (Conn, error)
	// Handle answers a request by Transfer.Send, until ctx ends. Each is called in a
	// goroutine of its own. An error of it goes to the client, unless it is an
	// *Aborted.
	Handle func(ctx context.Context, t *Transfer) error
	Log    *slog.Logger
}

// serving is a server that runs.
type serving struct {
	*Server
	conn      *ipv4.PacketConn
	places    *places
	transfers sync.WaitGroup
}

// Serve answers the requests that come to conn, until ctx ends, which is no error.
// It closes conn, and returns when all transfers have ended.
func (s *Server) Serve(ctx context.Context, conn *net.UDPConn) error {
	run := &serving{Server: s, conn: ipv4.NewPacketConn(conn), places: newPlaces(&s.Limits)}
	ctx, cancel := context.WithCancel(ctx)
	defer run.transfers.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	err := run.conn.SetControlMessage(ipv4.FlagDst, true)
	for buf := make([]byte, maxPacket); err == nil; {
		var n int
		var about *ipv4.ControlMessage
		var from net.Addr
		if n, about, from, err = run.conn.ReadFrom(buf); err != nil {
			break
		}
		contain.Do(s.Log, "a TFTP request", func() { run.receive(ctx, buf[:n], about, from) })
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("receive TFTP requests: %w", err)
}

// receive takes a packet at the server's port. Requests that were sent to all are
// ignored (RFC 1123, section 4.2.3.5).
func (s *serving) receive(ctx context.Context, packet []byte, about *ipv4.ControlMessage, from net.Addr) {
	udp, ok := from.(*net.UDPAddr)
	if !ok || about == nil {
		return
	}
	client := unmapped(udp.AddrPort())
	local, ok := netip.AddrFromSlice(about.Dst.To4())
	if !ok || local.IsMulticast() || about.Dst.Equal(net.IPv4bcast) {
		return
	}
	r, err := parseRequest(packet)
	if err == nil {
		err = refusal(r)
	}
	if errors.Is(err, errMalformed) {
		s.Log.Debug("not a TFTP request", "from", client, "error", err)
		return
	}
	var taken *place
	if err == nil {
		taken, err = s.places.enter(visit{client, string(packet)})
	}
	switch {
	case err == errRepeated:
	case err != nil:
		s.Log.Warn("tftp: refused", "from", client.Addr(), "file", clip(r.name), "error", err)
		_, _ = s.conn.WriteTo(errorPacket(err), nil, from)
	default:
		s.transfers.Go(func() {
			defer s.places.leave(taken)
			s.transfer(ctx, local, &Transfer{request: r, from: client, limits: &s.Limits, heard: func() { s.places.answered(taken) }})
		})
	}
}

// refusal tells why a request is none that we answer.
func refusal(r request) error {
	switch {
	case r.write:
		return &Error{AccessViolation, "this server takes no files"}
	case r.mode != "octet" && r.mode != "netascii":
		return &Error{IllegalOperation, "unknown mode"}
	}
	return nil
}

// transfer carries one transfer out.
func (s *serving) transfer(ctx context.Context, local netip.Addr, t *Transfer) {
	conn, err := s.Open(ctx, local)
	if err != nil {
		s.Log.Warn("tftp: no port for a transfer", "from", t.from.Addr(), "error", err)
		return
	}
	defer conn.Close()
	t.conn = conn
	err = contain.Call(s.Log, "a TFTP transfer", func() error { return s.Handle(ctx, t) })
	if fault := (*contain.Error)(nil); errors.As(err, &fault) {
		err = &Error{Other, "internal error"}
	}
	if aborted := (*Aborted)(nil); err != nil && !errors.As(err, &aborted) {
		t.write(errorPacket(err))
	}
}
