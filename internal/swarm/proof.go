package swarm

import (
	"crypto/rand"
	"errors"

	"viver.lan/internal/exchange"
	"viver.lan/internal/identity"
	"viver.lan/internal/swarm/wire"
)

// proof is how far a connection is in showing who is at its ends. It belongs to
// the peer's reader.
type proof struct {
	nonce   []byte // ours
	id      wire.PeerID
	hello   wire.Hello
	claimed identity.Public // the peer's key, as it says
	sent    bool            // ours
	judged  bool            // the peer's,
	right   bool            // and found right
}

func newNonce() []byte {
	b := make([]byte, wire.NonceSize)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}

// statement returns what is signed on this connection, by us or by the peer.
func (c *conn) statement(ours bool) wire.Statement {
	us, them := c.s.cfg.Key.Public(), c.proof.claimed
	here, there := wire.AddressOf(c.tcp.LocalAddr()), wire.AddressOf(c.tcp.RemoteAddr())
	if ours {
		return wire.Statement{Infohash: c.s.cfg.Info.Infohash, Signer: us, Verifier: them, Nonce: c.proof.hello.Nonce, From: here, To: there}
	}
	return wire.Statement{Infohash: c.s.cfg.Info.Infohash, Signer: them, Verifier: us, Nonce: c.proof.nonce, From: there, To: here}
}

// takeHello takes the peer's extension handshake, and proves our key to a peer that
// offers to prove its own.
func (c *conn) takeHello(payload []byte) error {
	hello, err := wire.ParseHello(payload)
	if err != nil {
		return err
	}
	c.proof.hello = hello
	c.post(func(x *exchange.Exchange) { x.Hello(c.key, hello) })
	if !hello.CanProve() {
		return nil
	}
	key := identity.Public(hello.Key)
	if c.proof.sent {
		if key != c.proof.claimed {
			return errors.New("it changes its key")
		}
		return nil
	}
	c.proof.claimed, c.proof.sent = key, true
	c.send(wire.Extension(hello.M.Proof, c.statement(true).Sign(c.s.cfg.Key)), false)
	return nil
}

// takeProof judges the peer's proof, once. Signing and that take as long as hundreds
// of messages.
func (c *conn) takeProof(signature []byte) error {
	if !c.proof.sent || c.proof.judged {
		return errors.New("a proof that was not asked for")
	}
	c.proof.judged = true
	c.proof.right = c.proof.id == wire.PeerIDOf(c.proof.claimed) && c.statement(false).Verify(signature)
	key, right := c.proof.claimed, c.proof.right
	c.post(func(x *exchange.Exchange) { x.Proved(c.key, key, right) })
	return nil
}
