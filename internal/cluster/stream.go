package cluster

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"

	"viver.lan/internal/contain"
	"viver.lan/internal/operator"
)

// maxState bounds what one connection brings, in bytes.
const maxState = 8 << 20

// stream is a TCP connection of the gossip, of which memberlist gets to read no
// more than an exchange of states among as many members as we remember.
// memberlist sets the deadlines.
type stream struct {
	net.Conn
	from    netip.Addr
	opened  time.Time
	prefix  string // that the other side begins with
	in      *bufio.Reader
	budget  *signatureBudget
	inspect func() error // once
	remove  func()
}

func newStream(conn net.Conn, prefix string, from netip.Addr, budget *signatureBudget, log *slog.Logger, remove func(*stream)) *stream {
	s := &stream{Conn: conn, prefix: prefix, from: from, opened: time.Now(), budget: budget, in: bufio.NewReaderSize(io.LimitReader(conn, maxState), 512)}
	s.inspect = sync.OnceValue(func() error { return contain.Call(log, "a gossip connection", s.inspectStart) })
	s.remove = sync.OnceFunc(func() { remove(s) })
	return s
}

// Read refuses to begin with anything our members do not send.
func (s *stream) Read(p []byte) (int, error) {
	if err := s.inspect(); err != nil {
		return 0, err
	}
	return s.in.Read(p)
}

// Close closes the connection and gives its place back.
func (s *stream) Close() error {
	s.remove()
	return s.Conn.Close()
}

// headerSize is enough for the header of an exchange; what follows is always
// longer.
const headerSize = 64

// inspectStart checks the kind of what the other side begins with, and its size.
func (s *stream) inspectStart() error {
	start := len(s.prefix)
	p, err := s.in.Peek(start + 1)
	if err != nil {
		return err
	}
	if string(p[:start]) != s.prefix {
		return fmt.Errorf("%w: no label %q", errForeign, label)
	}
	switch kind := p[start]; kind {
	case msgPing, msgAck, msgError:
		return nil
	case msgPushPull:
		p, err := s.in.Peek(start + 1 + headerSize)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err := inspectHeader(p[start+1:]); err != nil {
			return err
		}
		return s.filterState(start + 1)
	default:
		return fmt.Errorf("%w: kind %d", errForeign, kind)
	}
}

// inspectHeader bounds what a state claims to hold, for which memberlist
// allocates memory before it has seen more.
func inspectHeader(p []byte) error {
	var claims stateHeader
	if err := codec.NewDecoderBytes(p, new(codec.MsgpackHandle)).Decode(&claims); err != nil {
		return fmt.Errorf("%w: %w", errForeign, err)
	}
	return claims.check()
}

func (h stateHeader) check() error {
	if h.Nodes < 0 || h.Nodes > maxMembers || h.UserStateLen < 0 || h.UserStateLen > maxOverrideBytes {
		return fmt.Errorf("%w: a state of %d members and %d bytes of overrides", errForeign, h.Nodes, h.UserStateLen)
	}
	return nil
}

// maxOverrideBytes is the most that the operator's overrides take in a state.
const maxOverrideBytes = operator.MaxBatch
