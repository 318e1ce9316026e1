package swarm

import (
	"crypto/sha1"
	"slices"

	"viver.lan/internal/contain"
	"viver.lan/internal/exchange"
	"viver.lan/internal/swarm/wire"
)

// verify hashes a piece whose parts are all here and stores it. Nobody else
// touches its buffers meanwhile. A fault in that ends the piece, so that it is
// fetched again.
func (s *Swarm) verify(v exchange.Verify) {
	came := exchange.Verdict{Piece: v.Piece}
	came.Err = contain.Call(s.log, "a piece that has come", func() error {
		parts := bytesOf(v.Parts)
		if whole := s.whole(v); whole != nil {
			came.Right = [sha1.Size]byte(v.Sum) == s.cfg.Info.PieceHash(v.Piece)
			parts, came.Digests = [][]byte{whole}, digests(parts, v.Digests || !came.Right)
		} else {
			came.Right = s.cfg.Info.Verify(v.Piece, parts...)
			came.Digests = digests(parts, v.Digests || !came.Right)
		}
		if !came.Right {
			return nil
		}
		return s.cfg.Store.Put(v.Piece, parts)
	})
	for n, p := range v.Parts {
		if !slices.ContainsFunc(v.Parts[:n], func(q exchange.Part) bool { return q.Buffer == p.Buffer }) {
			s.free(p.Buffer)
		}
	}
	s.report("a piece that has come", func(x *exchange.Exchange) {
		came.Held = s.cfg.Store.Has(v.Piece)
		x.Verified(came)
	})
}

// whole returns a piece that came as one block, nil of others.
func (s *Swarm) whole(v exchange.Verify) []byte {
	if v.Sum == nil {
		return nil
	}
	return (*v.Parts[0].Buffer)[:s.cfg.Info.PieceSize(v.Piece)]
}

func bytesOf(parts []exchange.Part) (out [][]byte) {
	for _, p := range parts {
		out = append(out, (*p.Buffer)[p.Begin:p.End])
	}
	return out
}

// digests returns those of the parts, if they are needed.
func digests(parts [][]byte, needed bool) (out [][sha1.Size]byte) {
	for _, p := range parts {
		if needed {
			out = append(out, sha1.Sum(p))
		}
	}
	return out
}

// buffer returns a buffer for a block of n bytes.
func (s *Swarm) buffer(n int) *[]byte {
	if n <= wire.BlockSize {
		return s.blocks.Get().(*[]byte)
	}
	return s.wholes.Get().(*[]byte)
}

func (s *Swarm) free(buf *[]byte) {
	if len(*buf) == wire.BlockSize {
		s.blocks.Put(buf)
	} else {
		s.wholes.Put(buf)
	}
}
