package swarm

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"time"

	"viver.lan/internal/contain"
	"viver.lan/internal/copies"
	"viver.lan/internal/exchange"
	"viver.lan/internal/swarm/wire"
)

// For proofs of copies pieces are hashed, by one goroutine for the answers of this
// node and by another for those of others.

// machineOf names the machine at the other end of a connection, for people too;
// "" for this one.
func (s *Swarm) machineOf(local, remote netip.Addr) string {
	if local, remote = local.Unmap(), remote.Unmap(); local == remote {
		return ""
	}
	if s.cfg.Machine != nil {
		if name := s.cfg.Machine(remote); name != "" {
			return name
		}
	}
	return remote.String()
}

// answerLoop answers the questions of others.
func (s *Swarm) answerLoop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var c exchange.Challenge
		var again time.Duration
		ok := false
		s.do(func(x *exchange.Exchange) { c, again, ok = x.NextChallenge() })
		if ok {
			contain.Do(s.log, "a question for a proof", func() { s.answer(ctx, c) })
			continue
		}
		if again > 0 {
			timer.Reset(again)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wakeAnswer:
		case <-timer.C:
		}
	}
}

func (s *Swarm) answer(ctx context.Context, c exchange.Challenge) {
	i := c.Asked.Piece
	digest, err := s.digest(ctx, i, copies.Nonce(c.Asked.Nonce), string(s.cfg.Key.ID()))
	s.do(func(x *exchange.Exchange) {
		switch {
		case err == nil:
			x.Answer(c, digest)
		case !s.cfg.Store.Has(i):
			x.CannotAnswer(c)
		}
	})
}

// checkLoop checks the answers of others.
func (s *Swarm) checkLoop(ctx context.Context) error {
	for {
		var c exchange.Check
		ok := false
		s.do(func(x *exchange.Exchange) { c, ok = x.NextCheck() })
		if ok {
			contain.Do(s.log, "an answer with a proof", func() { s.check(ctx, c) })
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wakeCheck:
		}
	}
}

func (s *Swarm) check(ctx context.Context, c exchange.Check) {
	digest, err := s.digest(ctx, c.Asked.Piece, c.Asked.Nonce, c.Asked.ID)
	s.do(func(x *exchange.Exchange) {
		if err != nil { // the piece was evicted here meanwhile
			x.CannotCheck(c.Asked)
		} else {
			x.Checked(c.Asked, digest == c.Digest)
		}
	})
}

// digest hashes piece i as the proof of a holder. It takes its time: whoever
// reads goes first.
func (s *Swarm) digest(ctx context.Context, i int, nonce copies.Nonce, holder string) (sum [wire.DigestSize]byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, copies.AnswerWithin)
	defer cancel()
	piece, err := s.cfg.Store.Open(ctx, i, false)
	if err != nil {
		return sum, fmt.Errorf("open piece %d for a proof: %w", i, err)
	}
	defer piece.Release()
	h := copies.NewDigest(nonce, holder)
	size := s.cfg.Info.PieceSize(i)
	if file, off := piece.File(); file == nil {
		h.Write(piece.Bytes())
	} else {
		buf := s.buffer(wire.BlockSize)
		defer s.free(buf)
		if _, err := io.CopyBuffer(h, io.NewSectionReader(file, off, size), *buf); err != nil {
			s.cfg.Store.Unreadable(i, err)
			return sum, fmt.Errorf("read piece %d for a proof: %w", i, err)
		}
	}
	h.Sum(sum[:0])
	return sum, nil
}
