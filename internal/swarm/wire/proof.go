package wire

import (
	"crypto/sha256"
	"net"
	"net/netip"

	"viver.lan/internal/identity"
	"viver.lan/internal/manifest"
)

// NonceSize is the size in bytes of the numbers that peers sign for each other.
const NonceSize = 32

// PeerIDOf makes a node's name on the wire: client, version, and a digest of the
// node's key, so that a restarted node is recognised.
func PeerIDOf(key identity.Public) (id PeerID) {
	sum := sha256.Sum256(key[:])
	copy(id[:], "-VV0001-")
	copy(id[8:], sum[:])
	return id
}

// Statement is what one end of a connection signs for the other to prove its
// key. The addresses are part of it so that nobody can stand between two nodes,
// at an address of its own, and pass their proofs on; a peer behind NAT can
// therefore prove nothing.
type Statement struct {
	Infohash         manifest.Infohash
	Signer, Verifier identity.Public
	Nonce            []byte     // of the verifier
	From, To         netip.Addr // of the signer and the verifier
}

// statementPurpose is what the signature of a Statement is for.
const statementPurpose identity.Purpose = "viver peer, version 1"

func (s Statement) parts() [][]byte {
	return [][]byte{s.Infohash[:], s.Signer[:], s.Verifier[:], s.Nonce, s.From.AsSlice(), s.To.AsSlice()}
}

// Sign returns the payload of a viver_proof message. key is the signer's.
func (s Statement) Sign(key identity.Key) []byte { return key.Sign(statementPurpose, s.parts()...) }

// Verify judges the payload of a viver_proof message.
func (s Statement) Verify(proof []byte) bool {
	return s.Signer.Verify(statementPurpose, proof, s.parts()...)
}

// AddressOf returns the address of one end of a connection as a Statement has it.
func AddressOf(a net.Addr) netip.Addr {
	p, _ := netip.ParseAddrPort(a.String())
	return p.Addr().Unmap().WithZone("")
}
