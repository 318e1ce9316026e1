package swarm

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"viver.lan/internal/contain"
	"viver.lan/internal/identity"
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// maxOut bounds what waits to be written to a peer beside blocks.
const maxOut = 1 << 20

// writeLimit bounds one write; a block on a slow and crowded link included.
const writeLimit = 60 * time.Second

// peer is one connection.
type peer struct {
	s        *Swarm
	conn     *net.TCPConn
	id       wire.PeerID
	name     string // for people
	machine  string // that it runs on; see machineOf
	addr     netip.AddrPort
	outgoing bool
	fast     bool
	extended bool

	wakeWriter   chan struct{}
	wakeUploader chan struct{}
	uploads      chan upload
	lastData     atomic.Int64 // time.Duration: last byte of a block
	lastHeard    atomic.Int64 // time.Duration: last message
	owed         atomic.Int64 // work done for it beside what its messages cost as such

	// Of the reader.
	raw     syscall.RawConn
	wakesAt int  // bytes that wake it
	slow    bool // the last block took long
	sha1    hash.Hash
	proof   proof

	// Guarded by s.mu.
	key          schedule.Key
	since        time.Duration
	kind         schedule.Kind
	hello        wire.Hello
	greeted      bool            // the hello is its own
	proved       bool            // that it holds the key
	public       identity.Public // of a peer that proved it,
	node         identity.ID     // and what follows from it
	readyAt      time.Duration   // since when it is ready
	ready        bool            // the extension handshake and the proof, if any, are here
	contact      *contact
	block        int // bytes to request at once
	interested   bool
	closing      bool
	why          error
	distrusted   bool          // as known at the last tick
	distrustSaid int           // one more than it had given when that was logged
	lastSent     time.Duration // when the last block was sent to it
	out          []byte        // messages to be written
	queue        []wire.Block  // requests of the peer
	taken        int           // requests taken off the queue and not yet sent
	held         bool          // it is not its turn to be sent something
	turn         time.Duration // when it last was
	lane         schedule.Lane // whom it shares its turns with
	refused      bool          // a stranger whose request was rejected
	urgentPieces map[int]bool
	interrupt    context.CancelFunc // ends the opening of a piece that may wait,
	opening      int                // this one
	asked        map[wire.Block]struct{}
	owes         map[int]int // blocks asked per piece
	pexSent      map[netip.AddrPort]bool
	pexAt        time.Duration
	downloaded   uint64
	uploaded     uint64
}

// known reports whether the address or the key says who the peer is, and not only
// its own word.
func (p *peer) known() bool { return p.outgoing || p.proved }

// named reports whether this node's own boot named the peer as the first node.
func (p *peer) named() bool { return p.contact != nil && p.contact.origin && p.known() }

func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// say has messages written at once, after those queued before. Call it with
// s.mu held.
func (p *peer) say(b []byte) {
	p.queueOut(b)
	wake(p.wakeWriter)
}

// queueOut queues messages that are written together with the next ones. Call
// it with s.mu held.
func (p *peer) queueOut(b []byte) {
	if len(p.out)+len(b) > maxOut {
		p.close(errors.New("does not read what we send"))
		return
	}
	p.out = append(p.out, b...)
}

// close ends the connection; its goroutines notice. Call it with s.mu held.
func (p *peer) close(why error) {
	if !p.closing {
		p.closing, p.why = true, why
		p.conn.Close()
	}
}

// run serves a connection that is registered until it ends.
func (p *peer) run(ctx context.Context) {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return contain.Call(p.s.log, "a peer's messages", func() error { return p.readLoop(ctx) })
	})
	g.Go(func() error {
		return contain.Call(p.s.log, "messages to a peer", func() error { return p.writeLoop(ctx) })
	})
	g.Go(func() error {
		return contain.Call(p.s.log, "blocks for a peer", func() error { return p.uploadLoop(ctx) })
	})
	g.Go(func() error { <-ctx.Done(); p.conn.Close(); return nil })
	p.s.unregister(p, g.Wait())
}

func (p *peer) writeLoop(ctx context.Context) error {
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	wrote := time.Now()
	var spare []byte
	for {
		p.s.mu.Lock()
		out := p.out
		p.out = spare[:0]
		p.s.mu.Unlock()
		if len(out) > 0 {
			if err := p.write(out); err != nil {
				return err
			}
			wrote = time.Now()
		}
		if spare = out; cap(spare) > 1<<16 {
			spare = nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.wakeWriter:
		case u := <-p.uploads:
			p.conn.SetWriteDeadline(time.Now().Add(writeLimit))
			err := send(p.conn, u)
			u.piece.Release()
			if file := (fileError{}); errors.As(err, &file) {
				p.s.cfg.Store.Unreadable(u.blk.Piece, file)
			}
			if err != nil {
				return err
			}
			p.s.sent(p, u.blk)
			wrote = time.Now()
		case <-tick.C:
			if time.Since(wrote) > keepAlive/2 {
				if err := p.write(wire.AppendKeepAlive(nil)); err != nil {
					return err
				}
			}
		}
	}
}

func (p *peer) write(b []byte) error {
	p.conn.SetWriteDeadline(time.Now().Add(writeLimit))
	_, err := p.conn.Write(b)
	return err
}

func (p *peer) readLoop(ctx context.Context) error {
	work := newWork(p.s.cfg.Info.NumPieces())
	r := wire.NewReader(p.conn, wire.Limits{Pieces: p.s.cfg.Info.NumPieces(), Block: int(p.s.cfg.Info.PieceLength)})
	limit := strangerSilence
	for {
		p.conn.SetReadDeadline(time.Now().Add(limit))
		m, err := r.Next()
		if err != nil {
			return err
		}
		p.lastHeard.Store(int64(p.s.now()))
		cost := costOf(m, p.s.cfg.Info.NumPieces())
		if m.Type == wire.Piece && !m.KeepAlive {
			err = p.readBlock(r, m.Block)
		} else {
			err = p.take(m)
		}
		if err != nil {
			return err
		}
		if cost += int(p.owed.Swap(0)); cost == 0 {
			continue
		}
		if err := work.done(ctx, cost, p.s.now()); err != nil {
			return err
		}
		if p.proof.judged && p.proved { // both are written here
			limit = silence
		}
	}
}

// take acts on a message other than Piece.
func (p *peer) take(m wire.Message) error {
	extended := m.Type == wire.Extended && !m.KeepAlive
	if extended && m.ExtendedID == wire.IDProof {
		return p.takeProof(m.Payload)
	}
	err := p.locked(func() error { return p.handle(m) })
	if err == nil && extended && m.ExtendedID == wire.IDHandshake {
		return p.answerHello()
	}
	return err
}

// locked runs f with s.mu held, which a fault in f leaves free too.
func (p *peer) locked(f func() error) error {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	return f()
}

// wants tells whether a block that the peer sends is of use.
func (p *peer) wants(b wire.Block) bool {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	return p.s.expects(p, b)
}

// readBlock reads a block's bytes into a buffer of its own, so that two peers
// that send the same block never write to the same memory.
func (p *peer) readBlock(r *wire.Reader, b wire.Block) error {
	useful := p.wants(b)
	if !useful {
		p.owed.Add(1) // a byte that nobody asked for costs as much as a HAVE
	}
	var buf *[]byte
	var sum []byte
	if useful {
		buf = p.s.buffer(b.Length)
		began := time.Now()
		whole := int64(b.Length) == p.s.cfg.Info.PieceSize(b.Piece)
		p.sha1.Reset()
		for off := 0; off < b.Length; {
			if b.Length > wire.BlockSize && !p.slow {
				p.wakeAt(min(b.Length-off, wakeBytes))
			}
			n, err := r.ReadBody((*buf)[off:b.Length])
			if whole { // while the rest is on its way, and the bytes in the cache
				p.sha1.Write((*buf)[off : off+n])
			}
			off += n
			p.lastData.Store(int64(p.s.now()))
			if err != nil {
				p.s.free(buf)
				return err
			}
		}
		p.slow = time.Since(began) > slowBlock
		if whole {
			sum = p.sha1.Sum(nil)
		}
	}
	p.wakeAt(1)
	p.s.received(p, b, buf, sum)
	return nil
}

const (
	// wakeBytes of a block have to be there before its reader is woken.
	wakeBytes = 64 << 10
	// slowBlock is the time of a block beyond which each packet counts as a
	// sign of life.
	slowBlock = 2 * time.Second
)

// wakeAt has the kernel wake the reader when n bytes are there: a block comes
// in dozens of packets, and nobody is helped by a part of it. Failing to do so
// costs speed only.
func (p *peer) wakeAt(n int) {
	if n == p.wakesAt || p.raw == nil {
		return
	}
	p.wakesAt = n
	_ = p.raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, n) })
}

// handle takes a message other than Piece. It runs with s.mu held.
func (p *peer) handle(m wire.Message) error {
	s, now := p.s, p.s.now()
	s.table.Alive(p.key, now)
	if m.KeepAlive {
		return nil
	}
	switch m.Type {
	case wire.Choke:
		s.table.SetChoked(p.key, true)
		if !p.fast { // BEP 3: what was asked is forgotten
			for b := range p.asked {
				s.undone(p, b, 0)
			}
			s.fillAll()
		}
	case wire.Unchoke:
		s.table.SetChoked(p.key, false)
		s.fill(p)
	case wire.Have:
		p.has(m.Block.Piece, true)
		s.fill(p)
	case wire.Bitfield: // aria2 sends it after other messages, whatever BEP 3 says
		if err := wire.ParseBitfield(m.Payload, s.cfg.Info.NumPieces(), func(i int) { p.has(i, true) }); err != nil {
			return err
		}
		s.fill(p)
	case wire.HaveAll, wire.HaveNone:
		if !p.fast {
			return fmt.Errorf("%v without the fast extension", m.Type)
		}
		for i := range s.cfg.Info.NumPieces() {
			p.has(i, m.Type == wire.HaveAll)
		}
		s.fill(p)
	case wire.Request:
		return s.asks(p, m.Block)
	case wire.Cancel:
		p.cancelled(m.Block)
	case wire.Reject:
		if !p.fast {
			return errors.New("reject without the fast extension")
		}
		s.rejected(p, m.Block)
	case wire.Extended:
		return p.handleExtended(m, now)
	}
	return nil
}

// has notes that the peer has or has not piece i.
func (p *peer) has(i int, has bool) {
	p.s.table.PeerHas(p.key, i, has)
	if !has {
		p.s.copies.ledger.Dropped(p.nodeID(), i, p.s.now())
	}
	p.s.gifts.PeerHas(p.key, i, has, p.s.now())
	if has && p.s.demanded[i] && p.ready {
		if asked, _ := p.s.table.Asked(i); len(asked) == 0 {
			p.s.seek(i, true)
		}
	}
}

func (p *peer) handleExtended(m wire.Message, now time.Duration) error {
	s := p.s
	switch m.ExtendedID {
	case wire.IDHandshake:
		hello, err := wire.ParseHello(m.Payload)
		if err != nil {
			return err
		}
		again := p.greeted
		budget := p.hello.Budget
		p.hello, p.greeted = hello, true
		switch {
		case !again:
			s.introduced(p)
		case hello.Budget != budget && p.kind == schedule.Node:
			s.setOwned()
		}
	case wire.IDPex:
		pex, err := wire.ParsePex(m.Payload)
		if err != nil {
			return err
		}
		for _, a := range pex.Added {
			s.hear(a)
		}
	case wire.IDDontHave:
		i, err := wire.ParsePieceHint(m.Payload, s.cfg.Info.NumPieces())
		if err != nil {
			return err
		}
		p.has(i, false)
	case wire.IDUrgent:
		i, err := wire.ParsePieceHint(m.Payload, s.cfg.Info.NumPieces())
		if err != nil {
			return err
		}
		p.urgent(i)
		wake(p.wakeUploader)
	case wire.IDChallenge:
		c, err := wire.ParseChallenge(m.Payload, s.cfg.Info.NumPieces())
		if err != nil {
			return err
		}
		s.challenged(p, c)
	case wire.IDAnswer:
		a, err := wire.ParseAnswer(m.Payload, s.cfg.Info.NumPieces())
		if err != nil {
			return err
		}
		s.answered(p, a)
	}
	return nil
}

// handshake exchanges the opening bytes of a connection.
func (s *Swarm) handshake(conn net.Conn, outgoing bool) (wire.Handshake, error) {
	conn.SetDeadline(time.Now().Add(15 * time.Second))
	defer conn.SetDeadline(time.Time{})
	mine := wire.Handshake{Infohash: s.cfg.Info.Infohash, PeerID: s.id, Fast: true, Extended: true}.Append(nil)
	if outgoing {
		if _, err := conn.Write(mine); err != nil {
			return wire.Handshake{}, err
		}
	}
	var b [wire.HandshakeSize]byte
	if _, err := io.ReadFull(conn, b[:]); err != nil {
		return wire.Handshake{}, err
	}
	theirs, err := wire.ParseHandshake(b)
	if err != nil {
		return theirs, err
	}
	if theirs.Infohash != s.cfg.Info.Infohash {
		return theirs, fmt.Errorf("has another image, %v", theirs.Infohash)
	}
	if !outgoing {
		_, err = conn.Write(mine)
	}
	return theirs, err
}
