package swarm

import (
	"context"
	"crypto/sha1"
	"errors"
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
	err := contain.Call(s.log, "a question for a proof", func() error {
		return s.reading(a.Asked.Piece, func(piece Piece) (err error) {
			digest, err = s.digest(a.Asked.Piece, piece, copies.Nonce(a.Asked.Nonce), s.cfg.Key.ID())
			return err
		})
	})
	s.report("a proof for a peer", func(x *exchange.Exchange) { x.Answered(a, digest, err, s.cfg.Store.Has(a.Asked.Piece)) })
}

// check checks the answer of another node. When it is another one than that of our
// copy, ours may be the one that is wrong.
func (s *Swarm) check(c exchange.Check) {
	right := false
	err := contain.Call(s.log, "an answer with a proof", func() error {
		return s.reading(c.Asked.Piece, func(piece Piece) error {
			digest, err := s.digest(c.Asked.Piece, piece, c.Asked.Nonce, c.Asked.ID)
			if right = digest == c.Digest; err != nil || right {
				return err
			}
			return s.verifyOwn(c.Asked.Piece, piece)
		})
	})
	s.report("the proof of a peer", func(x *exchange.Exchange) { x.Checked(c.Asked, right, err) })
}

// digest hashes piece i as the proof of a holder.
func (s *Swarm) digest(i int, piece Piece, nonce copies.Nonce, holder identity.ID) (sum [wire.DigestSize]byte, err error) {
	h := copies.NewDigest(nonce, holder)
	err = s.hash(h, i, piece)
	h.Sum(sum[:0])
	return sum, err
}

var errRotten = errors.New("its bytes are not what they were when it was stored")

// verifyOwn returns an error when our copy of piece i is wrong.
func (s *Swarm) verifyOwn(i int, piece Piece) error {
	h := sha1.New()
	if err := s.hash(h, i, piece); err != nil {
		return err
	}
	if [sha1.Size]byte(h.Sum(nil)) != s.cfg.Info.PieceHash(i) {
		return errRotten
	}
	return nil
}

// reading opens piece i for f, which returns an error when it finds its bytes wanting.
// It takes its time: whoever reads goes first. The store hears of that error when the
// piece is released, since it forgets the piece then.
func (s *Swarm) reading(i int, f func(piece Piece) error) error {
	ctx, cancel := context.WithTimeout(s.ctx, copies.AnswerWithin)
	defer cancel()
	piece, err := s.cfg.Store.Open(ctx, i, false)
	if err != nil {
		return fmt.Errorf("open piece %d for a proof: %w", i, err)
	}
	file, _ := piece.File()
	if err = releasing(piece, f); err == nil {
		return nil
	}
	if file != nil {
		s.cfg.Store.Unreadable(i, err)
	}
	return fmt.Errorf("read piece %d for a proof: %w", i, err)
}

// releasing ends the use of a piece with f, also when that has a fault.
func releasing(piece Piece, f func(piece Piece) error) error {
	defer piece.Release()
	return f(piece)
}

// hash writes piece i to h.
func (s *Swarm) hash(h io.Writer, i int, piece Piece) error {
	file, off := piece.File()
	if file == nil {
		_, err := h.Write(piece.Bytes())
		return err
	}
	buf := s.buffer(wire.BlockSize)
	defer s.free(buf)
	size := s.cfg.Info.PieceSize(i)
	n, err := io.CopyBuffer(h, io.NewSectionReader(file, off, size), *buf)
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	return err
}
