package swarm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"viver.lan/internal/identity"
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// proof is how far a connection is in showing who is at its ends. It belongs to
// the peer's reader.
type proof struct {
	nonce   []byte          // ours
	claimed identity.Public // the peer's key, as it says
	sent    bool            // ours
	judged  bool            // the peer's
}

func newNonce() []byte {
	b := make([]byte, wire.NonceSize)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}

// statement returns what is signed on this connection, by us or by the peer.
func (p *peer) statement(ours bool) wire.Statement {
	us, them := p.s.cfg.Key.Public(), p.proof.claimed
	here, there := wire.AddressOf(p.conn.LocalAddr()), wire.AddressOf(p.conn.RemoteAddr())
	if ours {
		return wire.Statement{Infohash: p.s.cfg.Info.Infohash, Signer: us, Verifier: them, Nonce: p.hello.Nonce, From: here, To: there}
	}
	return wire.Statement{Infohash: p.s.cfg.Info.Infohash, Signer: them, Verifier: us, Nonce: p.proof.nonce, From: there, To: here}
}

// answerHello proves our key to a peer that offers to prove its own. The reader
// calls it after each hello, without s.mu: signing takes as long as hundreds of
// messages.
func (p *peer) answerHello() error {
	if !p.hello.CanProve() { // only the reader writes the hello
		return nil
	}
	key := identity.Public(p.hello.Key)
	if p.proof.sent {
		if key != p.proof.claimed {
			return errors.New("it changes its key")
		}
		return nil
	}
	p.proof.claimed, p.proof.sent = key, true
	signature := p.statement(true).Sign(p.s.cfg.Key)
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.say(wire.AppendExtended(nil, p.hello.M.Proof, signature))
	return nil
}

// takeProof judges the peer's proof, once. The reader calls it without s.mu.
func (p *peer) takeProof(signature []byte) error {
	if !p.proof.sent || p.proof.judged {
		return errors.New("a proof that was not asked for")
	}
	p.proof.judged = true
	key := p.proof.claimed
	right := p.id == wire.PeerIDOf(key) && p.statement(false).Verify(signature)
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.s.table.Alive(p.key, p.s.now())
	switch {
	case p.closing:
	case right:
		p.proved, p.public, p.node = true, key, key.ID()
		p.s.setReady(p)
	default:
		p.s.tell("peer did not prove its key; it is behind NAT, or pretends", "addr", p.name, "claims", key.ID())
		p.s.setReady(p)
	}
	return nil
}

// proofPause is for how long a node that has just met the first one asks it for
// nothing but what somebody waits for, while others prove their keys: among those
// it then shares with, each piece has one owner.
const proofPause = 200 * time.Millisecond

// proving reports whether the first node p is so new that it can wait for others
// that are here.
func (s *Swarm) proving(p *peer) bool {
	now := s.now()
	if now-p.readyAt >= proofPause {
		return false
	}
	for _, q := range s.peers {
		if !q.ready && !q.closing && now-q.since < proofPause {
			return true
		}
	}
	return false
}

// sender is whoever sent bytes: a node by its key, anybody else by its address
// and the name that it uses there.
type sender struct {
	node identity.ID
	addr netip.Addr // of a stranger
	id   wire.PeerID
}

func (p *peer) sender() sender {
	if p.proved {
		return sender{node: p.node}
	}
	return sender{addr: p.addr.Addr(), id: p.id}
}

func (w sender) String() string {
	if w.node != "" {
		return string(w.node)
	}
	return w.addr.String()
}

// host is all strangers at the address of one.
func (w sender) host() sender { return sender{node: w.node, addr: w.addr} }

// rank decides what p counts as, now that it is known whether it proved a key.
func (s *Swarm) rank(p *peer) schedule.Kind {
	first := p.hello.Origin != 0
	told := p.named()
	if at := s.contacts[netip.AddrPortFrom(p.addr.Addr(), p.hello.Port)]; p.proved && at != nil {
		told = told || at.origin // it dialled us
	}
	switch {
	case told, first && p.proved && !s.toldOrigin:
		return schedule.Origin
	case p.proved && !first && p.hello.Block > 0:
		return schedule.Node
	}
	// One that says it is the first node, and is not where we were told that
	// node is, has copies that must not be counted, and nothing to be asked of
	// it first.
	return schedule.Stranger
}

// settleDuplicates leaves one connection to each peer: of two to the same node
// the one that both ends choose, and none to whoever uses the name of a node
// that has proved it. It reports whether p stays.
func (s *Swarm) settleDuplicates(p *peer) bool {
	for _, q := range s.peers {
		if q == p || q.closing || q.id != p.id || !q.ready && !q.proved {
			continue
		}
		switch {
		case p.proved && !q.proved:
			q.close(errors.New("another peer has proved that this name is its own"))
		case q.proved && !p.proved:
			p.close(errors.New("its name belongs to another peer, which has proved it"))
			return false
		case keepOld(s.id, p, q, s.now()):
			p.handContact(q)
			if p.addr.Addr() != q.addr.Addr() {
				s.log.Warn("two peers have one name, the newer is refused", "at", p.addr.Addr(), "and", q.addr.Addr())
			}
			p.close(errDuplicate)
			return false
		default:
			q.handContact(p)
			q.close(errors.New("replaced by a newer connection"))
		}
	}
	return true
}

// handContact makes the address that p was dialled at that of q, which stays. That
// of the first node goes to nobody who has not proved to be the same.
func (p *peer) handContact(q *peer) {
	if p.contact == nil || p.contact.origin && !q.proved {
		return
	}
	if q.contact == nil {
		q.contact = p.contact
	}
	p.contact.peer = q
}

// handOver gives a contact whose connection has ended to a node that listens
// there, if one has dialled us, and reports whether there is one. The other end
// may have found before us that the two were connected twice.
func (s *Swarm) handOver(c *contact) bool {
	for _, q := range s.peers {
		if q.proved && !q.closing && (q.contact == nil || q.contact == c) && netip.AddrPortFrom(q.addr.Addr(), q.hello.Port) == c.addr {
			c.peer, q.contact = q, c
			return true
		}
	}
	return false
}

// rankAll ranks the peers anew, since we were told where the first node is.
func (s *Swarm) rankAll() {
	for _, p := range s.peers {
		if kind := s.rank(p); p.ready && !p.closing && kind != p.kind {
			s.setReady(p)
		}
	}
}

// refused says why a peer that is known now is not wanted.
func (s *Swarm) refused(p *peer) error {
	w := p.sender()
	if left := max(s.banned[w], s.banned[w.host()]) - s.now(); left > 0 {
		return fmt.Errorf("refused for another %v: it sent wrong bytes", left.Round(time.Second))
	}
	return nil
}

// ended reports whether a connection's end is no news: our own, or the second
// of two between the same nodes.
func ended(err error) bool { return errors.Is(err, context.Canceled) || errors.Is(err, errDuplicate) }
