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
	seed := sha256.Sum256([]byte(name))
	der, err := x509.MarshalPKCS8PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		tb.Fatal(err)
	}
	key, err := identity.Parse(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		tb.Fatal(err)
	}
	return key
}
