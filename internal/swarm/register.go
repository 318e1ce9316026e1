package swarm

import (
	"bytes"
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

var (
	errSelf      = errors.New("that is this node")
	errDuplicate = errors.New("connected already")
)

// connected takes over a new connection: it shakes hands and serves it until
// it ends. The contact is nil for an incoming connection. shaken is called when
// the handshake is over.
func (s *Swarm) connected(ctx context.Context, conn *net.TCPConn, c *contact, shaken func()) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	theirs, err := s.handshake(conn, c != nil)
	shaken()
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return fmt.Errorf("handshake: %w", err)
	}
	tune(conn)
	remote := conn.RemoteAddr().(*net.TCPAddr).AddrPort()
	p := &peer{
		s: s, conn: conn, id: theirs.PeerID, outgoing: c != nil, fast: theirs.Fast, extended: theirs.Extended,
		addr: netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port()), block: wire.BlockSize,
		wakeWriter: make(chan struct{}, 1), wakeUploader: make(chan struct{}, 1), uploads: make(chan upload),
		urgentPieces: make(map[int]bool), asked: make(map[wire.Block]struct{}), owes: make(map[int]int),
		pexSent: make(map[netip.AddrPort]bool), proof: proof{nonce: newNonce()},
	}
	p.name = p.addr.String()
	p.machine = s.machineOf(conn.LocalAddr().(*net.TCPAddr).AddrPort().Addr(), p.addr.Addr())
	p.raw, _ = conn.SyscallConn() // nil in the unlikely case costs speed only
	p.wakesAt, p.sha1 = 1, sha1.New()
	if err := s.register(p, c); err != nil {
		conn.Close()
		return err
	}
	p.run(ctx)
	return nil
}

// register makes p a peer and greets it. A fault in that leaves no peer behind
// which nobody serves.
func (s *Swarm) register(p *peer, c *contact) error {
	done := false
	defer func() {
		if !done && p.key != 0 {
			s.unregister(p, net.ErrClosed)
		}
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if p.id == s.id {
		if c != nil {
			c.self = true
		}
		return errSelf
	}
	if err := s.makePlace(p, c, now); err != nil {
		return err
	}
	s.nextKey++
	p.key, p.since, p.contact = s.nextKey, now, c
	p.lastHeard.Store(int64(now))
	if c != nil {
		c.peer, c.hearsay = p, false
	}
	s.peers[p.key] = p
	s.table.AddPeer(p.key)
	s.fed(p, 0)
	if now < s.distrusted[p.addr.Addr()] {
		s.table.Suspect(p.key, now)
	}
	s.greet(p)
	if !p.extended {
		s.setReady(p)
	}
	s.log.Debug("peer connected", "peer", p.name, "outgoing", p.outgoing)
	done = true
	return nil
}

// keepOld decides, the same way at both ends, which of two connections
// between the same nodes stays. A connection that has gone quiet may be the
// rest of a machine that was switched off.
func keepOld(self wire.PeerID, p, q *peer, now time.Duration) bool {
	if now-time.Duration(q.lastHeard.Load()) > 12*time.Second {
		return false
	}
	if p.outgoing == q.outgoing {
		return true
	}
	// The one that the node with the greater name began stays.
	mineIsGreater := bytes.Compare(self[:], q.id[:]) > 0
	return q.outgoing == mineIsGreater
}

// greet says what we have and who we are.
func (s *Swarm) greet(p *peer) {
	n, held := s.cfg.Info.NumPieces(), s.table.Held()
	switch {
	case p.fast && held.Count() == n:
		p.say(wire.AppendPlain(nil, wire.HaveAll))
	case p.fast && held.Count() == 0:
		p.say(wire.AppendPlain(nil, wire.HaveNone))
	case held.Count() > 0:
		p.say(wire.AppendBitfield(nil, n, held.Has))
	}
	if p.extended {
		p.say(s.helloTo(p).Append(nil))
	}
	p.say(wire.AppendPlain(nil, wire.Unchoke))
}

// introduced acts on the peer's extension handshake.
func (s *Swarm) introduced(p *peer) {
	if p.hello.Port != 0 && !p.outgoing {
		at := netip.AddrPortFrom(p.addr.Addr(), p.hello.Port)
		if c := s.hear(at); c != nil && !c.connected() {
			c.peer, p.contact = p, c
		}
	}
	if !p.hello.CanProve() {
		s.setReady(p)
	}
}

// setReady lets requests go to p, as what it counts as from now on. A peer that
// proves its key late is readied again.
func (s *Swarm) setReady(p *peer) {
	if err := s.refused(p); err != nil {
		p.close(err)
		return
	}
	if !s.settleDuplicates(p) {
		return
	}
	if !p.ready {
		p.ready, p.readyAt = true, s.now()
	}
	if p.proved && p.hello.Block > 0 {
		// Our own nodes send up to a whole piece at once.
		p.block = int(min(max(p.hello.Block, wire.BlockSize), s.cfg.Info.PieceLength)) / wire.BlockSize * wire.BlockSize
	}
	p.kind = s.rank(p)
	s.table.SetKind(p.key, p.kind)
	s.joinProofs(p)
	if p.kind != schedule.Stranger {
		s.setOwned()
	}
	s.tell("peer", "addr", p.name, "kind", p.kind, "client", p.hello.Client, "id", p.node)
	s.fillAll()
}

// unregister forgets p.
func (s *Swarm) unregister(p *peer, err error) {
	p.conn.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.closing {
		err = p.why
	}
	p.closing = true
	s.lastHeard = max(s.lastHeard, time.Duration(p.lastHeard.Load()))
	delete(s.peers, p.key)
	if s.gaveNothing(p) {
		s.blame(p.addr.Addr(), s.now())
	}
	s.table.RemovePeer(p.key)
	s.leaveProofs(p)
	for _, t := range s.tasks {
		if t.source == p {
			t.source = nil // the next peer begins the piece anew
		}
	}
	if c := p.contact; c != nil && c.peer == p && !s.handOver(c) {
		c.peer = nil
		if c.fails++; s.now()-p.since > 10*time.Second {
			c.fails = 0 // it was a good connection
		}
		c.next = s.now() + backoff(c.fails)
		wake(s.dial)
	}
	if p.kind != schedule.Stranger {
		s.setOwned()
	}
	s.nextTurns()
	if !ended(err) && !errors.Is(err, net.ErrClosed) { // that is our own end
		if errors.Is(err, io.EOF) {
			err = errors.New("it closed the connection")
		}
		s.tell("peer lost", "addr", p.name, "kind", p.kind, "why", err)
	}
	for i := range s.demanded {
		if asked, _ := s.table.Asked(i); len(asked) == 0 {
			s.seek(i, true)
		}
	}
	s.fillAll()
}
