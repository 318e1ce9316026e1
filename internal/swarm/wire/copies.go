package wire

import (
	"encoding/binary"
	"fmt"
)

// Sizes in bytes of what the messages about proofs carry.
const (
	ChallengeSize = 16
	DigestSize    = 32
)

// Challenge asks its receiver to prove that it has a piece (viver_challenge).
type Challenge struct {
	Piece int
	Nonce [ChallengeSize]byte
}

// Payload returns the payload of the message.
func (c Challenge) Payload() []byte { return proofPayload(c.Piece, c.Nonce[:]) }

// ParseChallenge reads the payload of a challenge about one of so many pieces.
func ParseChallenge(payload []byte, pieces int) (c Challenge, err error) {
	c.Piece, err = parseProof(payload, pieces, c.Nonce[:])
	return c, err
}

// Answer is the answer to a challenge (viver_answer). The digest is package
// proof's.
type Answer struct {
	Piece  int
	Digest [DigestSize]byte
}

// Payload returns the payload of the message.
func (a Answer) Payload() []byte { return proofPayload(a.Piece, a.Digest[:]) }

// ParseAnswer reads the payload of an answer about one of so many pieces.
func ParseAnswer(payload []byte, pieces int) (a Answer, err error) {
	a.Piece, err = parseProof(payload, pieces, a.Digest[:])
	return a, err
}

func proofPayload(piece int, rest []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(piece)), rest...)
}

func parseProof(payload []byte, pieces int, rest []byte) (int, error) {
	if len(payload) != 4+len(rest) {
		return 0, fmt.Errorf("message about a proof of %d bytes, want %d", len(payload), 4+len(rest))
	}
	piece := binary.BigEndian.Uint32(payload)
	if int64(piece) >= int64(pieces) {
		return 0, fmt.Errorf("proof of piece %d, there are %d", piece, pieces)
	}
	copy(rest, payload[4:])
	return int(piece), nil
}
