// Package wire is the BitTorrent peer protocol as bytes: handshake, messages
// and extension messages (BEP 3, 6, 10, 11, 54), encoded and decoded.
//
// It is pure: it owns no socket, no clock and no decision. The invariant:
// whatever bytes arrive, decoding ends in a message within the limits given or
// in an error, and never allocates more than those limits.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	pp "github.com/anacrolix/torrent/peer_protocol"

	"viver.lan/internal/manifest"
)

// BlockSize is the request size in bytes that every client accepts.
const BlockSize = 16 << 10

// MaxExtended bounds an extension message's payload in bytes.
const MaxExtended = 64 << 10

// Type is the kind of a message.
type Type = pp.MessageType

// The messages of BEP 3, 6 and 10.
const (
	Choke         = pp.Choke
	Unchoke       = pp.Unchoke
	Interested    = pp.Interested
	NotInterested = pp.NotInterested
	Have          = pp.Have
	Bitfield      = pp.Bitfield
	Request       = pp.Request
	Piece         = pp.Piece
	Cancel        = pp.Cancel
	Suggest       = pp.Suggest
	HaveAll       = pp.HaveAll
	HaveNone      = pp.HaveNone
	Reject        = pp.Reject
	AllowedFast   = pp.AllowedFast
	Extended      = pp.Extended
)

// PeerID is the 20 bytes by which a peer calls itself.
type PeerID [20]byte

// HandshakeSize is the number of bytes of a handshake.
const HandshakeSize = 68

// Handshake opens a connection in both directions.
type Handshake struct {
	Infohash manifest.Infohash
	PeerID   PeerID
	Fast     bool // BEP 6
	Extended bool // BEP 10
}

// Append appends the handshake's bytes to b.
func (h Handshake) Append(b []byte) []byte {
	var ext pp.PeerExtensionBits
	ext.SetBit(pp.ExtensionBitFast, h.Fast)
	ext.SetBit(pp.ExtensionBitLtep, h.Extended)
	b = append(b, pp.Protocol...)
	b = append(b, ext[:]...)
	b = append(b, h.Infohash[:]...)
	return append(b, h.PeerID[:]...)
}

// ParseHandshake reads a handshake.
func ParseHandshake(b [HandshakeSize]byte) (Handshake, error) {
	n := len(pp.Protocol)
	if string(b[:n]) != pp.Protocol {
		return Handshake{}, errors.New("not a plain BitTorrent handshake")
	}
	ext := pp.PeerExtensionBits(b[n : n+8])
	return Handshake{
		Infohash: manifest.Infohash(b[n+8 : n+28]),
		PeerID:   PeerID(b[n+28 : n+48]),
		Fast:     ext.SupportsFast(),
		Extended: ext.SupportsExtended(),
	}, nil
}

// Block names a range of bytes inside a piece.
type Block struct {
	Piece, Begin, Length int
}

func (b Block) String() string {
	return fmt.Sprintf("piece %d bytes %d-%d", b.Piece, b.Begin, b.Begin+b.Length-1)
}

// Bits returns the payload of a Bitfield of n pieces.
func Bits(n int, has func(i int) bool) []byte {
	b := make([]byte, (n+7)/8)
	for i := range n {
		if has(i) {
			b[i/8] |= 0x80 >> (i % 8)
		}
	}
	return b
}

// Append appends a message's bytes; of a Piece message all but the block's.
func (m Message) Append(b []byte) []byte {
	at, body := len(b), 0
	b = append(b, 0, 0, 0, 0) // the length
	if m.KeepAlive {
		return b
	}
	b = append(b, byte(m.Type))
	number := func(n int) { b = binary.BigEndian.AppendUint32(b, uint32(n)) }
	switch m.Type {
	case Have, Suggest, AllowedFast:
		number(m.Block.Piece)
	case Request, Cancel, Reject:
		number(m.Block.Piece)
		number(m.Block.Begin)
		number(m.Block.Length)
	case Piece:
		number(m.Block.Piece)
		number(m.Block.Begin)
		body = m.Block.Length
	case Extended:
		b = append(append(b, m.ExtendedID), m.Payload...)
	case Bitfield:
		b = append(b, m.Payload...)
	}
	binary.BigEndian.PutUint32(b[at:], uint32(len(b)-at-4+body))
	return b
}

// ParseBitfield calls have for each piece of the bitfield. A bitfield of
// another size, or with bits set beyond the last piece, is an error (BEP 3).
func ParseBitfield(bits []byte, n int, have func(i int)) error {
	if len(bits) != (n+7)/8 {
		return fmt.Errorf("bitfield of %d bytes for %d pieces", len(bits), n)
	}
	if n%8 != 0 && bits[n/8]<<(n%8) != 0 {
		return errors.New("bitfield has bits beyond the last piece")
	}
	for i := range n {
		if bits[i/8]&(0x80>>(i%8)) != 0 {
			have(i)
		}
	}
	return nil
}
