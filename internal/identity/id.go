package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"
)

// IDSize is the length of an ID in bytes.
const IDSize = 16

// ID names a machine that has booted: sixteen lower-case letters and digits (ASCII)
// that follow from its public key. Nobody finds a second key with the ID of another
// (80 bits of its SHA-256). The zero ID names nobody.
type ID [IDSize]byte

const digits = "abcdefghijklmnopqrstuvwxyz234567"

var encoding = base32.NewEncoding(digits).WithPadding(base32.NoPadding)

// ID returns the name that follows from the key.
func (p Public) ID() (id ID) {
	sum := sha256.Sum256(p[:])
	encoding.Encode(id[:], sum[:IDSize*5/8])
	return id
}

// ParseID reads an ID as String writes it.
func ParseID(s string) (ID, error) {
	if len(s) != IDSize || strings.Trim(s, digits) != "" {
		return ID{}, fmt.Errorf("no node's ID: want %d lower-case letters and digits, found %.20q", IDSize, s)
	}
	return ID([]byte(s)), nil
}

// String returns the text of the ID, "" of the zero ID.
func (id ID) String() string { return string(bytes.TrimRight(id[:], "\x00")) }

// IsZero reports whether id names nobody.
func (id ID) IsZero() bool { return id == ID{} }

// Compare orders IDs by their texts.
func (id ID) Compare(other ID) int { return bytes.Compare(id[:], other[:]) }

// MarshalText returns what String does.
func (id ID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (id *ID) UnmarshalText(text []byte) (err error) {
	if *id = (ID{}); len(text) > 0 {
		*id, err = ParseID(string(text))
	}
	return err
}
