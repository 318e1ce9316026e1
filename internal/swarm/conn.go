package swarm

import (
	"context"
	"crypto/sha1"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/contain"
	"viver.lan/internal/exchange"
	"viver.lan/internal/notify"
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// maxOut bounds what waits to be written to a peer beside blocks.
const maxOut = 1 << 20

// writeLimit bounds one write; a block on a slow and crowded link included.
const writeLimit = 60 * time.Second

// conn is one connection: its bytes and its goroutines. The methods that carry out
// commands do nothing when there is no such connection any more.
type conn struct {
	s   *Swarm
	tcp *net.TCPConn
	key schedule.Key

	wakeWriter   notify.Signal
	wakeUploader notify.Signal
	uploads      chan upload
	lastData     atomic.Int64 // time.Duration: last byte of a block that was asked for
	owed         atomic.Int64 // work done for it (exchange.TakeWork)

	// Of the reader.
	fast    bool // BEP 6 is spoken
	raw     syscall.RawConn
	wakesAt int  // bytes that wake it
	slow    bool // the last block took long
	sha1    hash.Hash
	work    work
	proof   proof

	// Of the swarm's owner.
	interrupt context.CancelFunc // ends the opening of a piece that may wait

	mu    sync.Mutex // guards what follows
	out   []byte     // messages to be written
	why   error      // the connection was closed here
	asked asked
}

// send has a message written after those before it: at once, or later together
// with others.
func (c *conn) send(m wire.Message, later bool) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.why != nil:
		return
	case len(c.out) > maxOut:
		c.why = errors.New("does not read what we send")
		c.tcp.Close()
		return
	}
	c.out = m.Append(c.out)
	c.asked.sent(m)
	if !later {
		c.wakeWriter.Send()
	}
}

// flush has written what was to be written later.
func (c *conn) flush() {
	c.mu.Lock()
	waiting := len(c.out) > 0
	c.mu.Unlock()
	if waiting {
		c.wakeWriter.Send()
	}
}

// close ends the connection; its goroutines notice.
func (c *conn) close() {
	if c != nil {
		c.tcp.Close()
	}
}

// offer says that there may be something to send. What is urgent does not wait for
// a piece that is being opened.
func (c *conn) offer(urgent bool) {
	if c == nil {
		return
	}
	if urgent && c.interrupt != nil {
		c.interrupt()
	}
	c.wakeUploader.Send()
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

// connected takes over a new connection: it shakes hands and serves it until
// it ends. dialled is not valid for an incoming connection. shaken is called when
// the handshake is over.
func (s *Swarm) connected(ctx context.Context, tcp *net.TCPConn, dialled netip.AddrPort, shaken func()) error {
	defer tcp.Close()
	stop := context.AfterFunc(ctx, func() { tcp.Close() })
	theirs, err := s.handshake(tcp, dialled.IsValid())
	shaken()
	if !stop() {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	tune(tcp)
	remote := tcp.RemoteAddr().(*net.TCPAddr).AddrPort()
	addr := netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	c := newConn(s, tcp)
	c.proof.id, c.fast = theirs.PeerID, theirs.Fast
	local := tcp.LocalAddr().(*net.TCPAddr).AddrPort().Addr()
	return c.serve(ctx, exchange.Endpoint{ID: theirs.PeerID, Addr: addr, Machine: s.machineOf(local, addr.Addr()), Dialled: dialled,
		Fast: theirs.Fast, Extended: theirs.Extended, Nonce: c.proof.nonce})
}

func newConn(s *Swarm, tcp *net.TCPConn) *conn {
	c := &conn{s: s, tcp: tcp, wakeWriter: notify.NewSignal(), wakeUploader: notify.NewSignal(), uploads: make(chan upload), asked: make(asked),
		wakesAt: 1, sha1: sha1.New(), proof: proof{nonce: newNonce()}}
	c.raw, _ = tcp.SyscallConn() // nil in the unlikely case costs speed only
	return c
}

// serve makes a peer of the connection and serves it until it ends. A fault in
// that leaves no peer behind which nobody serves.
func (c *conn) serve(ctx context.Context, e exchange.Endpoint) error {
	err := error(net.ErrClosed)
	defer func() { c.end(err) }()
	refused := err
	c.wait(func(x *exchange.Exchange) {
		c.s.last++
		c.key = c.s.last
		if refused = x.Connected(c.key, e); refused == nil {
			c.s.conns[c.key] = c
			c.work = newWork(&c.s.work, e.Addr.Addr(), c.s.now(), c.s.cfg.Info.NumPieces())
		}
	})
	if refused != nil {
		return refused
	}
	c.s.log.Debug("peer connected", "peer", e.Addr, "outgoing", e.Dialled.IsValid())
	err = c.run(ctx)
	return nil
}

// end says that the connection has ended.
func (c *conn) end(err error) {
	c.tcp.Close()
	c.mu.Lock()
	if c.why != nil {
		err = c.why
	}
	c.mu.Unlock()
	ours := errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed)
	if errors.Is(err, io.EOF) {
		err = errors.New("it closed the connection")
	}
	c.post(func(x *exchange.Exchange) {
		c.progress(x)
		delete(c.s.conns, c.key)
		x.Disconnected(c.key, err, !ours)
	})
}

// post reports something to the exchange, wait waits until it was taken.
func (c *conn) post(f func(x *exchange.Exchange)) {
	c.s.events <- event{f: f, fromPeers: saidByPeer, conn: c}
}

func (c *conn) wait(f func(x *exchange.Exchange)) {
	done := make(chan struct{})
	c.s.events <- event{f, saidByPeer, c, done}
	<-done
}

const saidByPeer = "what a peer said"

// progress tells when bytes of a block came last.
func (c *conn) progress(x *exchange.Exchange) { x.Progress(c.key, time.Duration(c.lastData.Load())) }

// run serves the connection until it ends.
func (c *conn) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return contain.Call(c.s.log, "a peer's messages", func() error { return c.readLoop(ctx) })
	})
	g.Go(func() error {
		return contain.Call(c.s.log, "messages to a peer", func() error { return c.writeLoop(ctx) })
	})
	g.Go(func() error {
		return contain.Call(c.s.log, "blocks for a peer", func() error { return c.uploadLoop(ctx) })
	})
	g.Go(func() error { <-ctx.Done(); c.tcp.Close(); return nil })
	return g.Wait()
}

func (c *conn) writeLoop(ctx context.Context) error {
	tick := time.NewTicker(exchange.KeepAlive)
	defer tick.Stop()
	wrote := time.Now()
	var spare []byte
	for {
		c.mu.Lock()
		out := c.out
		c.out = spare[:0]
		c.mu.Unlock()
		if len(out) > 0 {
			if err := c.write(out); err != nil {
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
		case <-c.wakeWriter:
		case u := <-c.uploads:
			if err := c.sendBlock(u); err != nil {
				return err
			}
			wrote = time.Now()
		case <-tick.C:
			if time.Since(wrote) > exchange.KeepAlive/2 {
				if err := c.write(wire.Message{KeepAlive: true}.Append(nil)); err != nil {
					return err
				}
			}
		}
	}
}

// sendBlock sends a block. The store hears that it cannot read it when the block's
// piece is released.
func (c *conn) sendBlock(u upload) error {
	err := releasing(u.piece, func(Piece) error {
		c.tcp.SetWriteDeadline(time.Now().Add(writeLimit))
		return send(c.tcp, u)
	})
	if file := (fileError{}); errors.As(err, &file) {
		c.s.cfg.Store.Unreadable(u.blk.Piece, file)
	}
	if err == nil {
		c.post(func(x *exchange.Exchange) { x.Sent(c.key, u.blk) })
	}
	return err
}

func (c *conn) write(b []byte) error {
	c.tcp.SetWriteDeadline(time.Now().Add(writeLimit))
	_, err := c.tcp.Write(b)
	return err
}
