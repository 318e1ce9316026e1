package swarm

import (
	"context"
	"fmt"
	"io"
	"net/netip"

	"viver.lan/internal/contain"
	"viver.lan/internal/copies"
	"viver.lan/internal/exchange"
	"viver.lan/internal/identity"
	"viver.lan/internal/swarm/wire"
)

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

// answer answers a question of another node.
func (s *Swarm) answer(a exchange.Answer) {
	var digest [wire.DigestSize]byte
	err := contain.Call(s.log, "a question for a proof", func() (err error) {
		digest, err = s.digest(a.Asked.Piece, copies.Nonce(a.Asked.Nonce), s.cfg.Key.ID())
		return err
	})
	s.events <- event{f: func(x *exchange.Exchange) { x.Answered(a, digest, err, s.cfg.Store.Has(a.Asked.Piece)) }}
}

// check checks the answer of another node.
func (s *Swarm) check(c exchange.Check) {
	right := false
	err := contain.Call(s.log, "an answer with a proof", func() error {
		digest, err := s.digest(c.Asked.Piece, c.Asked.Nonce, c.Asked.ID)
		right = digest == c.Digest
		return err
	})
	s.events <- event{f: func(x *exchange.Exchange) { x.Checked(c.Asked, right, err) }}
}

// digest hashes piece i as the proof of a holder. It takes its time: whoever
// reads goes first.
func (s *Swarm) digest(i int, nonce copies.Nonce, holder identity.ID) (sum [wire.DigestSize]byte, err error) {
	ctx, cancel := context.WithTimeout(s.ctx, copies.AnswerWithin)
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
