// Package identitytest makes keys for tests: the same name gives the same key,
// so a node that a test starts again is the same node.
package identitytest

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"testing"

	"viver.lan/internal/identity"
)

// Key returns the key of the machine of that name. Everybody can make it.
func Key(tb testing.TB, name string) identity.Key {
	tb.Helper()
	key, err := identity.ParseKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded(name)}))
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// ID returns the ID of the machine of that name.
func ID(name string) identity.ID {
	return identity.Public(secret(name).Public().(ed25519.PublicKey)).ID()
}

// Named returns an ID that no key has and that reads like the name, of which it has
// the first sixteen bytes.
func Named(name string) (id identity.ID) {
	copy(id[:], name)
	return id
}

func secret(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func encoded(name string) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(secret(name))
	if err != nil {
		return nil // no Ed25519 key fails
	}
	return der
}
