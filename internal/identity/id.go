package identity

import (
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"
)

// ID names a machine that has booted: sixteen lower-case letters and digits that
// follow from its public key. Nobody finds a second key with the ID of another (80
// bits of its SHA-256). The zero ID names nobody.
type ID string

// IDSize is the length of each ID's text in bytes.
const IDSize = 16

const digits = "abcdefghijklmnopqrstuvwxyz234567"

var encoding = base32.NewEncoding(digits).WithPadding(base32.NoPadding)

// ID returns the name that follows from the key.
func (p Public) ID() ID {
	sum := sha256.Sum256(p[:])
	return ID(encoding.EncodeToString(sum[:IDSize*5/8]))
}

// ParseID reads an ID as String writes it.
func ParseID(s string) (ID, error) {
	if len(s) != IDSize || strings.Trim(s, digits) != "" {
		return "", fmt.Errorf("no node's ID: want %d lower-case letters and digits, found %.20q", IDSize, s)
	}
	return ID(s), nil
}

// String returns the text of the ID, "" of the zero ID.
func (id ID) String() string { return string(id) }

// IsZero reports whether id names nobody.
func (id ID) IsZero() bool { return id == "" }

// Compare orders IDs by their texts.
func (id ID) Compare(other ID) int { return cmp.Compare(id, other) }
