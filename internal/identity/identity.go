// Package identity says who a machine on the boot network is: the holder of the
// secret half of an Ed25519 key (RFC 8032) that the machine made itself.
//
// There is no registration, so a key says nothing about whether its holder is
// honest: a machine may make as many as it likes. What a key gives is that nobody
// else can speak in its name. The package makes keys, signs and
// checks; keyfile keeps them in files, and what is signed, and what a signature is
// worth, is the business of whoever asks. The invariant: Verify is true only for the very parts, and the
// very purpose, that the holder of the key signed.
package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"fmt"
)

// Sizes in bytes.
const (
	PublicSize    = ed25519.PublicKeySize
	SignatureSize = ed25519.SignatureSize
)

// Public is the half of a key that everybody may know. The zero value is none.
type Public [PublicSize]byte

// Purpose says what kind of thing a signature is for, in at most 255 bytes. A
// signature for one purpose is none for another (the context of RFC 8032, 5.1).
type Purpose string

// Verify reports whether the holder of the key signed these parts for that
// purpose.
func (p Public) Verify(purpose Purpose, signature []byte, parts ...[]byte) bool {
	options := &ed25519.Options{Context: string(purpose)}
	return ed25519.VerifyWithOptions(p[:], message(parts), signature, options) == nil
}

// Key is a machine's secret. Print it nowhere.
type Key struct{ private ed25519.PrivateKey }

// Generate makes a new key.
func Generate() (Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, fmt.Errorf("make this machine's key: %w", err)
	}
	return Key{private}, nil
}

// IsZero reports whether there is no key.
func (k Key) IsZero() bool { return k.private == nil }

// Public returns the half that may be told.
func (k Key) Public() Public {
	if k.IsZero() {
		return Public{}
	}
	return Public(k.private.Public().(ed25519.PublicKey))
}

// ID returns the name of the machine.
func (k Key) ID() ID { return k.Public().ID() }

// String returns the ID, so that no log shows the secret.
func (k Key) String() string { return k.ID().String() }

// GoString is String for %#v.
func (k Key) GoString() string { return k.String() }

// Sign returns the signature of parts for that purpose, SignatureSize bytes that
// are the same each time. A key that is zero gives nil, which nobody accepts.
func (k Key) Sign(purpose Purpose, parts ...[]byte) []byte {
	if k.IsZero() {
		return nil
	}
	signature, err := k.private.Sign(nil, message(parts), &ed25519.Options{Context: string(purpose)})
	if err != nil {
		return nil // a purpose of more than 255 bytes
	}
	return signature
}

// message puts the parts behind one another, each after its length, so that no
// two lists of parts have one message.
func message(parts [][]byte) (b []byte) {
	for _, p := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	return b
}

// Sequence returns the first of the numbers by which what a key signs is ordered,
// those of one start before all of the next.
func Sequence(start uint64) uint64 { return start << 20 }
