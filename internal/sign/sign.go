// Package sign says who made something: it signs with the owner's key and
// checks against its public half.
//
// Keys and signatures are minisign's (https://jedisct1.github.io/minisign/), in
// the prehashed form, so that minisign(1) can make and check all of them. The
// package does not encrypt, knows no chain of keys and no dates: one owner, one
// key. The invariant: Verify returns nil only for the very bytes, and the very
// purpose, that the holder of the secret key signed.
package sign

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"aead.dev/minisign"
)

// Purpose says what kind of thing a signature is for. It is the trusted comment
// of the signature and therefore signed: one made for an entry is worth nothing
// on a manifest, whatever the bytes are.
type Purpose string

// What the owner's key signs.
const (
	// Manifest is the description of an image, manifest.json.
	Manifest Purpose = "viver manifest"
	// Override is an operator override for running nodes (package operator).
	Override Purpose = "viver entry"
)

// MaxKeySize bounds keys and signatures in bytes: real ones have some 300.
const MaxKeySize = 4 << 10

// PublicKey checks signatures. The zero value accepts none.
type PublicKey struct {
	key minisign.PublicKey
	set bool // an all-zero key is a point on the curve: it must not be used
}

// ParsePublicKey reads a public key as minisign(1) writes it, with or without
// the line of comment.
func ParsePublicKey(text []byte) (PublicKey, error) {
	k := PublicKey{set: true}
	if len(text) > MaxKeySize {
		return PublicKey{}, fmt.Errorf("public key: larger than %d bytes", MaxKeySize)
	}
	if err := k.key.UnmarshalText(bytes.TrimSpace(text)); err != nil {
		return PublicKey{}, fmt.Errorf("not a minisign public key: %w", err)
	}
	return k, nil
}

// IsZero reports whether there is no key.
func (k PublicKey) IsZero() bool { return !k.set }

// Equal reports whether both are the same key.
func (k PublicKey) Equal(other PublicKey) bool { return k.set == other.set && k.key.Equal(other.key) }

// ID returns the number by which people tell keys apart, in hexadecimal and
// without leading zeros, as minisign(1) prints it. It is a name and proves
// nothing.
func (k PublicKey) ID() string {
	if !k.set {
		return "none"
	}
	return formatID(k.key.ID())
}

// String returns the key in one line, as `minisign -P` takes it.
func (k PublicKey) String() string {
	if !k.set {
		return ""
	}
	return k.key.String()
}

// Text returns the key as a public key file of minisign(1).
func (k PublicKey) Text() []byte {
	return fmt.Appendf(nil, "untrusted comment: minisign public key %s\n%s\n", k.ID(), k.key)
}

// Verify checks that the holder of the secret key signed message for that
// purpose. Its error says by whom and for what it was signed instead, as far as
// that can be told.
func (k PublicKey) Verify(purpose Purpose, message, signature []byte) error {
	if !k.set {
		return errors.New("no public key to check the signature with")
	}
	s, err := parseSignature(signature)
	switch {
	case err != nil:
		return err
	case s.KeyID != k.key.ID():
		return fmt.Errorf("signed by key %s, expected key %s", formatID(s.KeyID), k.ID())
	case !minisign.Verify(k.key, message, signature):
		return fmt.Errorf("the signature that names key %s does not belong to these bytes, or another key made it: one of them was changed", k.ID())
	case s.TrustedComment != string(purpose):
		return fmt.Errorf("signed by key %s as %q, expected %q", k.ID(), s.TrustedComment, purpose)
	}
	return nil
}

// parseSignature reads a signature in the one form that package and minisign(1)
// write.
func parseSignature(text []byte) (*minisign.Signature, error) {
	if len(text) > MaxKeySize {
		return nil, fmt.Errorf("signature: larger than %d bytes", MaxKeySize)
	}
	var s minisign.Signature
	if err := s.UnmarshalText(text); err != nil {
		return nil, fmt.Errorf("not a minisign signature: %w", err)
	}
	// The algorithm's name is not signed. Were both taken, a signature of a
	// message would also be one of that message's digest.
	if s.Algorithm != minisign.HashEdDSA {
		return nil, errors.New("a legacy signature, expected a prehashed one: sign without minisign's -l")
	}
	// Base64 has bits that decoding passes over.
	if s.String() != string(text) {
		return nil, errors.New("not a minisign signature: it has bytes that do not belong there")
	}
	return &s, nil
}

// PrivateKey signs. Who has it can speak as the owner.
type PrivateKey struct {
	key minisign.PrivateKey
	set bool
}

// Generate makes a new key.
func Generate() (PrivateKey, error) {
	_, key, err := minisign.GenerateKey(nil)
	if err != nil {
		return PrivateKey{}, fmt.Errorf("make a key: %w", err)
	}
	return PrivateKey{key, true}, nil
}

// parsePrivateKey reads a secret key without a password.
func parsePrivateKey(text []byte) (PrivateKey, error) {
	k := PrivateKey{set: true}
	if err := k.key.UnmarshalText(bytes.TrimSpace(text)); err != nil {
		if strings.Contains(err.Error(), "encrypted") {
			return PrivateKey{}, errors.New("the key has a password, which cannot be asked for here: use one without (minisign -G -W)")
		}
		return PrivateKey{}, fmt.Errorf("not a minisign secret key: %w", err)
	}
	// The file has both halves and no checksum.
	probe := []byte("probe")
	if err := k.Public().Verify(Override, probe, k.Sign(Override, probe)); err != nil {
		return PrivateKey{}, errors.New("the key is damaged: what it signs does not verify")
	}
	return k, nil
}

// IsPrivateKey reports whether a file of that content is a secret key that
// anyone could sign with. Such a file must not be given away.
func IsPrivateKey(data []byte) bool {
	_, err := parsePrivateKey(data)
	return err == nil
}

// IsZero reports whether there is no key.
func (k PrivateKey) IsZero() bool { return !k.set }

// Public returns the half that may be given away.
func (k PrivateKey) Public() PublicKey {
	if !k.set {
		return PublicKey{}
	}
	return PublicKey{key: k.key.Public().(minisign.PublicKey), set: true}
}

// Sign returns the signature of message, a file of minisign(1). The same
// message gives the same bytes. A key that is zero gives a signature that
// nobody accepts.
func (k PrivateKey) Sign(purpose Purpose, message []byte) []byte {
	r := minisign.NewReader(bytes.NewReader(message))
	_, _ = r.Read(make([]byte, len(message))) // a bytes.Reader fills it at once
	return r.SignWithComments(k.key, string(purpose), "signed by key "+k.Public().ID())
}

// text returns the key as a secret key file of minisign(1).
func (k PrivateKey) text() ([]byte, error) {
	data, err := k.key.MarshalText()
	return append(data, '\n'), err
}

func formatID(id uint64) string { return fmt.Sprintf("%X", id) }
