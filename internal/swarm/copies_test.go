package swarm

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"viver.lan/internal/copies"
	"viver.lan/internal/exchange"
	"viver.lan/internal/identity"
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// proves answers a challenge as the holder of the piece, by the name given.
func proves(holder identity.ID) func(f *fake, c net.Conn, payload []byte) {
	return func(f *fake, c net.Conn, payload []byte) {
		ask, err := wire.ParseChallenge(payload, f.info.NumPieces())
		if err != nil {
			return
		}
		h := copies.NewDigest(copies.Nonce(ask.Nonce), holder)
		off := f.info.PieceOffset(ask.Piece)
		h.Write(f.data[off : off+f.info.PieceSize(ask.Piece)])
		c.Write(wire.Extension(wire.IDAnswer, wire.Answer{Piece: ask.Piece, Digest: [wire.DigestSize]byte(h.Sum(nil))}.Payload()).Append(nil))
	}
}

// evades says that it no longer has what it is asked for.
func evades(f *fake, c net.Conn, payload []byte) {
	if ask, err := wire.ParseChallenge(payload, f.info.NumPieces()); err == nil {
		c.Write(wire.Extension(wire.IDDontHave, wire.PieceHint(ask.Piece)).Append(nil))
	}
}

func lies(f *fake, c net.Conn, payload []byte) {
	if ask, err := wire.ParseChallenge(payload, f.info.NumPieces()); err == nil {
		c.Write(wire.Extension(wire.IDAnswer, wire.Answer{Piece: ask.Piece}.Payload()).Append(nil))
	}
}

// at returns the neighbour at the other end of an address, as far as it is known.
func (s *testSwarm) neighbourOf(f *fake) (n exchange.Neighbour, ok bool) {
	for _, n := range s.Neighbours() {
		if n.ID == f.key.ID() {
			return n, true
		}
	}
	return n, false
}

// A key, a budget and HAVE_ALL earn a peer nothing: only answers do, its own
// ones.
func TestOnlyProofsCount(t *testing.T) {
	t.Parallel()
	info, data := newImage(t, 20)
	another := newFake(info, data, "another").ours(t)
	for name, c := range map[string]struct {
		challenge func(f *fake, c net.Conn, payload []byte)
		standing  copies.Standing
	}{
		"honest":   {func(f *fake, c net.Conn, b []byte) { proves(f.key.ID())(f, c, b) }, "proved"},
		"relaying": {proves(another.key.ID()), "failed"}, // what another holder would answer
		"wrong":    {lies, "failed"},
		"evasive":  {evades, "failed"},
		"silent":   {nil, "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFake(info, data, name).ours(t)
			f.challenge = c.challenge
			s := startAt(t, info, "node", data, "127.0.0.2:0")
			s.AddPeer(f.listen(t), false)
			eventually(t, "the peer has a standing", func() bool {
				peers, _ := s.Status()
				return len(peers) == 1 && peers[0].Proof == c.standing
			})
			n, ok := s.neighbourOf(f)
			if !ok { // it has said nothing for so long that it counts as gone
				n.Kind = schedule.Node
			}
			if want := c.standing == "proved"; n.Kind != schedule.Node || n.Counts != want || n.Place != want || want != (n.Proved.Count() > 0) {
				t.Errorf("%+v", n)
			}
			if failures := Ask(s.Swarm, (*exchange.Exchange).ProofFailures); (len(failures) == 1) != (c.standing == "failed") {
				t.Errorf("failures: %+v", failures)
			}
		})
	}
}

// Two swarms prove their copies to each other, the one that keeps asking pays for
// it, and the asked one hashes no more than it is asked for.
func TestSwarmsProveToEachOther(t *testing.T) {
	t.Parallel()
	info, data := newImage(t, 40)
	a, b := startAt(t, info, "a", data, "127.0.0.2:0"), startAt(t, info, "b", nil, "127.0.0.3:0")
	b.AddPeer(a.Addr(), false)
	for _, s := range []*testSwarm{a, b} {
		eventually(t, "the other has proved its copies", func() bool {
			n := s.Neighbours()
			return len(n) == 1 && n[0].Counts && n[0].Claim.Pieces.Count() == info.NumPieces()
		})
	}
	id := b.cfg.Key.ID()
	a.Do(func(x *exchange.Exchange) { x.Doubt([]copies.Doubt{{ID: id, Piece: 7}, {ID: id, Piece: 8}}) })
	eventually(t, "what is doubted is proved", func() bool {
		n := a.Neighbours()
		return len(n) == 1 && n[0].Proved.Has(7) && n[0].Proved.Has(8)
	})
	// What b loses it claims no more, and its proof of it is worth nothing.
	b.store.lose(7)
	b.Changed(7)
	eventually(t, "the lost piece counts no more", func() bool {
		n := a.Neighbours()
		return len(n) == 1 && !n[0].Proved.Has(7) && n[0].Counts
	})
	_, stats := a.Status()
	if st := stats.Proofs; st.Asked < copies.Enough || st.Answered < copies.Enough || st.Bytes != (st.Asked+st.Answered)*testPiece {
		t.Logf("%+v", st) // the last piece is shorter
	}
}

// A flood of challenges is answered at a bounded rate, and no stranger's is.
func TestChallengeFlood(t *testing.T) {
	t.Parallel()
	info, data := newImage(t, 20)
	s := startAt(t, info, "node", data, "127.0.0.2:0")
	for n, f := range []*fake{newFake(info, data, "flood").ours(t), newFake(info, data, "stranger")} {
		stranger := n == 1
		f.greet = func(c net.Conn) {
			f.hello(c)
			go func() {
				for n := 0; ; n++ {
					if _, err := c.Write(wire.Extension(wire.IDChallenge, wire.Challenge{Piece: n % 20, Nonce: [wire.ChallengeSize]byte{byte(n), byte(n >> 8)}}.Payload()).Append(nil)); err != nil {
						return
					}
					time.Sleep(100 * time.Microsecond)
				}
			}()
		}
		s.AddPeer(f.listen(t), false)
		answers := func() (count int) {
			for _, m := range f.heard() {
				if m.Type == wire.Extended && m.ExtendedID == wire.IDAnswer {
					count++
				}
			}
			return count
		}
		begin := time.Now()
		if !stranger {
			eventually(t, "the node is answered", func() bool { return answers() > 20 })
		} else {
			eventually(t, "the stranger is here", func() bool { p, _ := s.Status(); return len(p) == 2 })
		}
		got, limit := answers(), 4<<20*(time.Since(begin).Seconds()+1)/testPiece
		if stranger {
			limit = 0
		}
		if float64(got) > limit {
			t.Errorf("stranger %v: %d answers, at most %.0f are right", stranger, got, limit)
		}
	}
}

// Who asks for a piece that it claims loses the claim, and in the end its standing.
func TestClaimsAreHeldAgainstRequests(t *testing.T) {
	t.Parallel()
	info, data := newImage(t, 20)
	f := newFake(info, data, "x").ours(t)
	f.challenge = proves(f.key.ID())
	conns := make(chan net.Conn, 1)
	f.greet = func(c net.Conn) { f.hello(c); conns <- c }
	s := startAt(t, info, "node", data, "127.0.0.2:0")
	s.AddPeer(f.listen(t), false)
	eventually(t, "the peer is proved", func() bool { n, _ := s.neighbourOf(f); return n.Counts })
	c := <-conns
	for i := range 3 {
		c.Write(wire.Message{Type: wire.Request, Block: wire.Block{Piece: i, Length: wire.BlockSize}}.Append(nil))
	}
	eventually(t, "it is found out", func() bool { return len(Ask(s.Swarm, (*exchange.Exchange).ProofFailures)) == 1 })
	if n, ok := s.neighbourOf(f); ok && (n.Claim.Pieces.Has(0) || n.Claim.Pieces.Count() != 17) {
		t.Errorf("it still claims %d pieces", n.Claim.Pieces.Count())
	}
}

// What Machine says groups addresses, and an address that nothing is known of
// stands for itself.
func TestMachineOf(t *testing.T) {
	t.Parallel()
	info, _ := newImage(t, 4)
	s := start(t, info, "node", nil)
	for _, c := range [][3]string{{"10.0.0.1", "10.0.0.1", ""}, {"10.0.0.1", "10.0.0.2", "10.0.0.2"}, {"10.0.0.1", "::ffff:10.0.0.1", ""}} {
		if got := s.machineOf(netip.MustParseAddr(c[0]), netip.MustParseAddr(c[1])); got != c[2] {
			t.Errorf("%v: machine %q", c, got)
		}
	}
}
