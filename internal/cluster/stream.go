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

// stream is a TCP connection of the gossip, of which memberlist gets to read no
// more than an exchange of states among as many members as we remember.
// memberlist sets the deadlines.
type stream struct {
	net.Conn
	from   netip.Addr
	opened time.Time
	prefix string // that the other side begins with
	in     *bufio.Reader
	checks *checks // nil: what it brings is not counted
	begin  func() error
	leave  func()
}

func newStream(conn net.Conn, prefix string, log *slog.Logger, leave func(*stream)) *stream {
	s := &stream{Conn: conn, prefix: prefix, in: bufio.NewReaderSize(io.LimitReader(conn, maxState), 512)}
	s.begin = sync.OnceValue(func() error { return contain.Call(log, "a gossip connection", s.inspect) })
	s.leave = sync.OnceFunc(func() { leave(s) })
	return s
}

// Read refuses to begin with anything our members do not send.
func (s *stream) Read(p []byte) (int, error) {
	if err := s.begin(); err != nil {
		return 0, err
	}
	return s.in.Read(p)
}

// Close closes the connection and gives its place back.
func (s *stream) Close() error {
	s.leave()
	return s.Conn.Close()
}

// headerSize is enough for the header of an exchange; what follows is always
// longer.
const headerSize = 64

func (s *stream) inspect() error {
	start := len(s.prefix)
	p, err := s.in.Peek(start + 1)
	if err != nil {
		return err
	}
	if string(p[:start]) != s.prefix {
		return fmt.Errorf("%w: no label %q", errGate, label)
	}
	switch kind := p[start]; kind {
	case msgPing, msgAck, msgError:
		return nil
	case msgPushPull:
		p, err := s.in.Peek(start + 1 + headerSize)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err := inspectHeader(p[start+1:]); err != nil || s.checks == nil {
			return err
		}
		return s.sift(start + 1)
	default:
		return fmt.Errorf("%w: kind %d", errGate, kind)
	}
}

// inspectHeader bounds what a state claims to hold, for which memberlist sets
// memory aside before it has seen more.
func inspectHeader(p []byte) error {
	var claims stateHeader
	if err := codec.NewDecoderBytes(p, new(codec.MsgpackHandle)).Decode(&claims); err != nil {
		return fmt.Errorf("%w: %w", errGate, err)
	}
	return claims.check()
}

func (h stateHeader) check() error {
	if h.Nodes < 0 || h.Nodes > maxMembers || h.UserStateLen < 0 || h.UserStateLen > maxWords {
		return fmt.Errorf("%w: a state of %d members and %d bytes of words", errGate, h.Nodes, h.UserStateLen)
	}
	return nil
}

// maxWords is the most that the operator's entries take in a state.
const maxWords = operator.MaxBatch
