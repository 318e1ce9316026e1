package swarm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// maxQueue is how many requests of one peer wait here; more are rejected.
const maxQueue = 256

// upload is a block ready to be sent.
type upload struct {
	blk   wire.Block
	piece Piece
}

// asks takes a request of peer p.
func (s *Swarm) asks(p *peer, b wire.Block) error {
	size := int(s.cfg.Info.PieceSize(b.Piece))
	if b.Length <= 0 || b.Length > int(s.cfg.Info.PieceLength) || b.Begin < 0 || b.Begin > size-b.Length {
		return fmt.Errorf("request for %v, the piece has %d bytes", b, size)
	}
	if b.Length < wire.BlockSize {
		p.owed.Add(1) // small blocks cost as much as large ones
	}
	if slices.Contains(p.queue, b) {
		p.owed.Add(1)
		return nil
	}
	if s.table.PeerPieces(p.key).Has(b.Piece) {
		p.has(b.Piece, false)
		s.copies.ledger.Contradicted(p.nodeID(), b.Piece, s.now())
	}
	if len(p.queue) >= maxQueue || !s.table.Held().Has(b.Piece) {
		p.reject(b)
		return nil
	}
	p.queue = append(p.queue, b)
	wake(p.wakeUploader)
	return nil
}

// urgent moves the requests for piece i to the front.
func (p *peer) urgent(i int) {
	queued := slices.ContainsFunc(p.queue, func(b wire.Block) bool { return b.Piece == i })
	if !queued && (p.interrupt == nil || p.opening != i) {
		return
	}
	p.urgentPieces[i] = true
	if p.interrupt != nil {
		p.interrupt()
	}
}

// cancelled drops a request.
func (p *peer) cancelled(b wire.Block) {
	if n := slices.Index(p.queue, b); n >= 0 {
		p.queue = slices.Delete(p.queue, n, n+1)
		p.reject(b) // BEP 6: every request gets an answer
	}
}

// reject says that a request will not be answered. Peers without the fast
// extension are told nothing, as BEP 3 knows no word for it.
func (p *peer) reject(b wire.Block) {
	p.owed.Add(1)
	if p.fast {
		p.refused = p.kind == schedule.Stranger
		p.say(wire.AppendBlock(nil, wire.Reject, b))
	}
}

// uploadLoop prepares one block after the other for the writer.
func (p *peer) uploadLoop(ctx context.Context) error {
	for {
		b, urgent, ok := p.s.nextUpload(p)
		if !ok {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-p.wakeUploader:
			}
			continue
		}
		piece, err := p.open(ctx, b, urgent)
		if ctx.Err() != nil {
			if err == nil {
				piece.Release()
			}
			return ctx.Err()
		}
		if err != nil {
			continue
		}
		select {
		case p.uploads <- upload{b, piece}:
		case <-ctx.Done():
			piece.Release()
			return ctx.Err()
		}
	}
}

// open opens the piece of block b. What may take long, because a disc turns,
// is put back for something that somebody waits for.
func (p *peer) open(ctx context.Context, b wire.Block, urgent bool) (Piece, error) {
	opening, cancel := context.WithCancel(ctx)
	defer cancel()
	if !urgent {
		p.s.mu.Lock()
		p.interrupt, p.opening = cancel, b.Piece
		p.s.mu.Unlock()
	}
	piece, err := p.s.cfg.Store.Open(opening, b.Piece, urgent)
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	p.interrupt = nil
	if err != nil {
		p.taken--
		if opening.Err() != nil {
			p.queue = append(p.queue, b)
		} else {
			p.reject(b)
		}
	}
	return piece, err
}

// nextUpload takes the request to answer next from p's queue, and tells
// whether it is urgent. Those it does not admit are rejected on the way.
func (s *Swarm) nextUpload(p *peer) (b wire.Block, urgent, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(p.queue) > 0 {
		if p.held = !s.mayTake(p); p.held {
			return wire.Block{}, false, false
		}
		n := max(0, slices.IndexFunc(p.queue, func(b wire.Block) bool { return p.urgentPieces[b.Piece] }))
		b := p.queue[n]
		p.queue = slices.Delete(p.queue, n, n+1)
		urgent := p.urgentPieces[b.Piece]
		if urgent && !slices.ContainsFunc(p.queue, func(q wire.Block) bool { return q.Piece == b.Piece }) {
			delete(p.urgentPieces, b.Piece)
		}
		if s.admit(p, b.Piece, urgent) {
			p.taken++
			s.copies.ledger.Sent(b.Piece)
			p.turn = s.now()
			return b, urgent, true
		}
		p.reject(b)
	}
	clear(p.urgentPieces)
	return wire.Block{}, false, false
}

// mayTake reports whether it is p's turn to be sent something.
func (s *Swarm) mayTake(p *peer) bool {
	others := s.takings[:0]
	for _, q := range s.peers {
		if q != p && len(q.queue)+q.taken > 0 {
			others = append(others, s.taking(q))
		}
	}
	s.takings = others
	return schedule.MayTake(s.taking(p), others, s.now())
}

func (s *Swarm) taking(p *peer) schedule.Taking {
	return schedule.Taking{Lane: p.lane, Turn: p.turn, Sending: p.taken > 0, Waiting: len(p.queue) > 0}
}

// nextTurns lets those look again whose turn it was not.
func (s *Swarm) nextTurns() {
	for _, p := range s.peers {
		if p.held {
			wake(p.wakeUploader)
		}
	}
}

// fed counts n bytes that went to p and decides whose turn it shares: an address
// needs the image once, and now and then a part of it again.
func (s *Swarm) fed(p *peer, n int) {
	const again = 5 * time.Minute
	host := p.addr.Addr()
	r := s.takers[host]
	if r == nil {
		if len(s.takers) >= maxHosts {
			forgetRates(s.takers, s.now())
		}
		size := float64(s.cfg.Info.Size)
		r = rate.NewLimiter(rate.Limit(size/again.Seconds()), int(size+size/8))
		s.takers[host] = r
	}
	needed := r.AllowN(clock(s.now()), n)
	p.lane = schedule.Lane{Host: host.String()}
	if !needed && s.table.Given(p.key) == 0 {
		p.lane = schedule.Lane{Taker: true}
	}
}

// admit applies the origin's rule: a piece leaves it once.
func (s *Swarm) admit(p *peer, i int, urgent bool) bool {
	if !s.cfg.Origin {
		return true
	}
	others := 0
	for _, q := range s.peers {
		if q != p && len(q.queue)+q.taken > 0 {
			others++
		}
	}
	gone := func(k schedule.Key) bool { return s.peers[k] == nil }
	return s.gifts.Admit(p.key, p.kind, i, urgent, others, gone, s.now())
}

// sent counts a block that went to p.
func (s *Swarm) sent(p *peer, b wire.Block) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.taken--
	p.lastSent = s.now()
	p.uploaded += uint64(b.Length)
	s.stats.Sent += uint64(b.Length)
	s.fed(p, b.Length)
	s.nextTurns()
}

// fileError says that the store's file is at fault, not the connection. The
// connection is lost with it all the same: half a message is out.
type fileError struct{ error }

func (e fileError) Unwrap() error { return e.error }

// send writes a Piece message, from the store's file straight to the socket
// where it can.
func send(conn *net.TCPConn, u upload) error {
	var header [13]byte
	h := wire.AppendPieceHeader(header[:0], u.blk)
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
