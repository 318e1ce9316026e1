package swarm

import (
	"context"
	"errors"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/exchange"
	"viver.lan/internal/swarm/wire"
)

// upload is a block ready to be sent.
type upload struct {
	blk   wire.Block
	piece Piece
}

// uploadLoop prepares one block after the other for the writer.
func (c *conn) uploadLoop(ctx context.Context) error {
	for {
		u, piece, err := c.nextUpload(ctx)
		if err != nil {
			return err
		}
		if piece == nil {
			continue
		}
		select {
		case c.uploads <- upload{u.Block, piece}:
		case <-ctx.Done():
			piece.Release()
			return ctx.Err()
		}
	}
}

// nextUpload opens the piece that is to be sent next. When there is none it waits
// until there may be one, and returns nil. What may take long, because a disc
// turns, is put back for something that somebody waits for.
func (c *conn) nextUpload(ctx context.Context) (u exchange.Upload, piece Piece, err error) {
	opening, cancel := context.WithCancel(ctx)
	defer cancel()
	var again time.Duration
	ok := false
	c.wait(func(x *exchange.Exchange) {
		u, again, ok = x.NextUpload(c.key)
		c.interrupt = cancel
	})
	if !ok {
		return u, nil, c.awaitOffer(ctx, again)
	}
	piece, err = c.s.cfg.Store.Open(opening, u.Block.Piece, u.Urgent)
	if ctx.Err() != nil {
		if err == nil {
			piece.Release()
		}
		return u, nil, ctx.Err()
	}
	if err != nil {
		interrupted := opening.Err() != nil
		c.post(func(x *exchange.Exchange) { x.NotOpened(c.key, u, interrupted) })
		return u, nil, nil
	}
	return u, piece, nil
}

// awaitOffer waits until there may be something to send.
func (c *conn) awaitOffer(ctx context.Context, again time.Duration) error {
	var look <-chan time.Time
	if again > 0 {
		t := time.NewTimer(again)
		defer t.Stop()
		look = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-c.wakeUploader:
	case <-look:
	}
	return nil
}

// unsent reports whether the kernel has yet to send something of a connection.
func (c *conn) unsent() bool {
	left := 0
	if c == nil || c.raw == nil || c.raw.Control(func(fd uintptr) { left, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQNSD) }) != nil {
		return false
	}
	return left > 0
}

// fileError says that the store's file is at fault, not the connection. The
// connection is lost with it all the same: half a message is out.
type fileError struct{ error }

func (e fileError) Unwrap() error { return e.error }

// send writes a Piece message, from the store's file straight to the socket
// where it can.
func send(conn *net.TCPConn, u upload) error {
	var header [13]byte
	h := wire.Message{Type: wire.Piece, Block: u.blk}.Append(header[:0])
	file, off := u.piece.File()
	if file == nil {
		data := u.piece.Bytes()
		bufs := net.Buffers{h, data[u.blk.Begin : u.blk.Begin+u.blk.Length]}
		_, err := bufs.WriteTo(conn)
		return err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	off += int64(u.blk.Begin)
	left := u.blk.Length
	var serr error
	err = raw.Write(func(fd uintptr) bool {
		for len(h) > 0 || left > 0 {
			var n int
			if len(h) > 0 {
				n, serr = unix.SendmsgBuffers(int(fd), [][]byte{h}, nil, nil, unix.MSG_MORE|unix.MSG_NOSIGNAL)
				h = h[max(n, 0):]
			} else {
				n, serr = unix.Sendfile(int(fd), int(file.Fd()), &off, left)
				left -= max(n, 0)
			}
			switch {
			case serr == unix.EINTR:
			case serr == unix.EAGAIN:
				return false // until the socket takes more
			case serr == nil && n == 0:
				serr = fileError{errors.New("the piece store's file ends too early")}
				return true
			case serr == unix.EIO: // no socket says that
				serr = fileError{serr}
				return true
			case serr != nil:
				return true
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	return serr
}
