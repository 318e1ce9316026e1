package swarm

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/exchange"
	"viver.lan/internal/swarm/wire"
)

// The reader of a connection: it takes messages, and blocks with their bytes.

func (c *conn) readLoop(ctx context.Context) error {
	pieces := c.s.cfg.Info.NumPieces()
	r := wire.NewReader(c.tcp, wire.Limits{Pieces: pieces, Block: wire.BlockSize}) // a stranger is asked for no more
	limit, cost := strangerSilence, 0
	var batch []wire.Message
	for {
		c.tcp.SetReadDeadline(time.Now().Add(limit))
		m, err := r.Next()
		if err != nil {
			return err
		}
		cost += costOf(m, pieces)
		asked := c.answered(m)
		own := m.Type == wire.Piece || m.Type == wire.Extended && (m.ExtendedID == wire.IDHandshake || m.ExtendedID == wire.IDProof)
		if !own {
			batch = append(batch, m)
			if r.Ready() && len(batch) < maxBatch {
				continue
			}
		}
		c.report(batch)
		batch = nil
		if own {
			if err := c.take(r, m, asked); err != nil {
				return err
			}
		}
		if cost += int(c.owed.Swap(0)); cost > 0 {
			if err := c.work.done(ctx, cost, c.s.now()); err != nil {
				return err
			}
		}
		if cost = 0; c.proof.right {
			limit = silence
			r.AllowBlocks(int(c.s.cfg.Info.PieceLength))
		}
	}
}

// maxBatch is how many messages are reported together at the most.
const maxBatch = 64

// report has the exchange know of messages that came together.
func (c *conn) report(batch []wire.Message) {
	if len(batch) > 0 {
		c.post(func(x *exchange.Exchange) {
			x.Messages(c.key, batch)
			c.owed.Add(int64(x.TakeWork(c.key)))
		})
	}
}

// take acts on a message that is for the connection itself; asked says that it is a
// block that was asked for.
func (c *conn) take(r *wire.Reader, m wire.Message, asked bool) error {
	switch {
	case m.Type == wire.Piece && !asked: // its bytes are skipped
		c.wait(func(x *exchange.Exchange) {
			x.Unasked(c.key, m.Block)
			c.owed.Add(int64(x.TakeWork(c.key)))
		})
		return nil
	case m.Type == wire.Piece:
		return c.readBlock(r, m.Block)
	case m.ExtendedID == wire.IDHandshake:
		return c.takeHello(m.Payload)
	}
	return c.takeProof(m.Payload)
}

// readBlock reads a block's bytes into a buffer of its own, so that two peers
// that send the same block never write to the same memory.
func (c *conn) readBlock(r *wire.Reader, b wire.Block) error {
	buf := c.s.buffer(b.Length)
	began := time.Now()
	whole := int64(b.Length) == c.s.cfg.Info.PieceSize(b.Piece)
	c.sha1.Reset()
	for off := 0; off < b.Length; {
		if b.Length > wire.BlockSize && !c.slow {
			c.wakeAt(min(b.Length-off, wakeBytes))
		}
		n, err := r.ReadBody((*buf)[off:b.Length])
		if whole { // while the rest is on its way, and the bytes in the cache
			c.sha1.Write((*buf)[off : off+n])
		}
		off += n
		c.lastData.Store(int64(c.s.now()))
		if err != nil {
			c.s.free(buf)
			return err
		}
	}
	c.slow = time.Since(began) > slowBlock
	c.wakeAt(1)
	var sum []byte
	if whole {
		sum = c.sha1.Sum(nil)
	}
	used := false
	var complete *exchange.Verify
	c.wait(func(x *exchange.Exchange) {
		used, complete = x.BlockArrived(c.key, b, buf, sum)
		c.owed.Add(int64(x.TakeWork(c.key)))
	})
	if !used {
		c.s.free(buf)
	}
	if complete != nil {
		c.s.verify(*complete)
	}
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
func (c *conn) wakeAt(n int) {
	if n == c.wakesAt || c.raw == nil {
		return
	}
	c.wakesAt = n
	_ = c.raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, n) })
}
