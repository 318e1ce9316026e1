package wire

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
)

// Limits are what a reader accepts.
type Limits struct {
	// Pieces is the number of pieces of the torrent.
	Pieces int
	// Block is the largest block, in bytes, that a Piece message may carry.
	Block int
}

// Message is one message. Which fields count depends on Type.
type Message struct {
	// KeepAlive messages have no type.
	KeepAlive bool
	Type      Type
	// Block is the piece for Have, Suggest and AllowedFast, the range for
	// Request, Cancel, Reject and Piece.
	Block Block
	// ExtendedID says which extension message Payload is; 0 is the handshake.
	ExtendedID byte
	// Payload of Bitfield and Extended.
	Payload []byte
}

// Reader reads messages from a peer.
type Reader struct {
	r      *bufio.Reader
	limits Limits
	buf    [8]byte
	body   int // unread bytes of the current Piece message
}

// NewReader returns a reader of the messages in r.
func NewReader(r io.Reader, limits Limits) *Reader {
	// A small buffer: the bytes of large blocks pass it by.
	return &Reader{r: bufio.NewReaderSize(r, 4<<10), limits: limits}
}

// AllowBlocks sets the limit of a block from the next message on.
func (r *Reader) AllowBlocks(bytes int) { r.limits.Block = bytes }

// Next reads the next message. After a Piece message the block's bytes have
// to be read with ReadBody; what is left of them is skipped by Next. Messages
// of unknown type are skipped as well, as BEP 3 and later extensions ask for.
func (r *Reader) Next() (Message, error) {
	for {
		m, known, err := r.next()
		if err != nil || known {
			return m, err
		}
	}
}

// Ready reports whether the next message is here as a whole, so that Next does not
// wait.
func (r *Reader) Ready() bool {
	n := r.r.Buffered()
	b, err := r.r.Peek(min(n, 5))
	if r.body > 0 || err != nil || len(b) < 5 {
		return false
	}
	length := int64(binary.BigEndian.Uint32(b))
	return int64(n) >= 4+length && (length == 0 || isKnown(Type(b[4])))
}

func (r *Reader) next() (m Message, known bool, err error) {
	if err := r.skip(r.body); err != nil {
		return m, false, err
	}
	r.body = 0
	b, err := r.take(4)
	if err != nil {
		return m, false, err // io.EOF here is a clean end
	}
	length := int64(binary.BigEndian.Uint32(b))
	if length == 0 {
		return Message{KeepAlive: true}, true, nil
	}
	t, err := r.r.ReadByte()
	if err != nil {
		return m, false, noEOF(err)
	}
	m.Type, length = Type(t), length-1
	if err := r.checkLength(m.Type, length); err != nil {
		return m, false, err
	}
	if err := r.fields(&m, int(length)); err != nil {
		return m, false, noEOF(err)
	}
	return m, isKnown(m.Type), nil
}

// fields reads the n bytes that follow the type.
func (r *Reader) fields(m *Message, n int) error {
	switch m.Type {
	case Have, Suggest, AllowedFast:
		b, err := r.take(4)
		if err != nil {
			return err
		}
		m.Block.Piece = int(binary.BigEndian.Uint32(b))
	case Request, Cancel, Reject, Piece:
		b, err := r.take(8)
		if err != nil {
			return err
		}
		m.Block.Piece = int(binary.BigEndian.Uint32(b))
		m.Block.Begin = int(binary.BigEndian.Uint32(b[4:]))
		if m.Type == Piece {
			m.Block.Length = n - 8
			r.body = m.Block.Length
			break
		}
		if b, err = r.take(4); err != nil {
			return err
		}
		m.Block.Length = int(binary.BigEndian.Uint32(b))
	case Bitfield, Extended:
		b := make([]byte, n)
		if _, err := io.ReadFull(r.r, b); err != nil {
			return err
		}
		if m.Type == Extended {
			m.ExtendedID, b = b[0], b[1:]
		}
		m.Payload = b
	default:
		return r.skip(n)
	}
	if m.Block.Piece >= r.limits.Pieces {
		return fmt.Errorf("%v of piece %d, there are %d", m.Type, m.Block.Piece, r.limits.Pieces)
	}
	return nil
}

// ReadBody reads bytes of the current Piece message into p and returns how
// many; it returns fewer than len(p) when that is what has arrived. At the
// end of the block it returns 0, io.EOF.
func (r *Reader) ReadBody(p []byte) (int, error) {
	if r.body == 0 {
		return 0, io.EOF
	}
	n, err := r.r.Read(p[:min(len(p), r.body)])
	r.body -= n
	return n, noEOF(err)
}

// checkLength refuses a message whose length, without the type byte, cannot
// be right.
func (r *Reader) checkLength(t Type, n int64) error {
	lo, hi := int64(0), int64(0)
	switch t {
	case Choke, Unchoke, Interested, NotInterested, HaveAll, HaveNone:
	case Have, Suggest, AllowedFast:
		lo, hi = 4, 4
	case Request, Cancel, Reject:
		lo, hi = 12, 12
	case Bitfield:
		lo = int64(r.limits.Pieces+7) / 8
		hi = lo
	case Piece:
		lo, hi = 9, int64(8+r.limits.Block)
	case Extended:
		lo, hi = 1, MaxExtended
	default:
		hi = MaxExtended
	}
	if n < lo || n > hi {
		return fmt.Errorf("message %v with %d bytes, want %d to %d", t, n, lo, hi)
	}
	return nil
}

func isKnown(t Type) bool {
	switch t {
	case Choke, Unchoke, Interested, NotInterested, Have, Bitfield, Request, Piece, Cancel,
		Suggest, HaveAll, HaveNone, Reject, AllowedFast, Extended:
		return true
	}
	return false
}

// take reads n bytes; they are valid until the next call.
func (r *Reader) take(n int) ([]byte, error) {
	_, err := io.ReadFull(r.r, r.buf[:n])
	return r.buf[:n], err
}

func (r *Reader) skip(n int) error {
	_, err := r.r.Discard(n)
	return noEOF(err)
}

// noEOF says that an end inside a message is not a clean end.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
