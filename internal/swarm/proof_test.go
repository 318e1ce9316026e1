package swarm

import (
	"bytes"
	"io"
	"net"
	"testing"

	"viver.lan/internal/identity"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// dial connects as a peer of that name on the wire and says hello; it returns
// the other side's hello.
func dial(t *testing.T, n *testSwarm, id wire.PeerID, hello wire.Hello) (c net.Conn, theirs wire.Hello) {
	t.Helper()
	c, err := net.Dial("tcp", n.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.Write(wire.Extension(wire.IDHandshake, hello.Payload()).Append(wire.Handshake{Infohash: n.cfg.Info.Infohash, PeerID: id, Fast: true, Extended: true}.Append(nil)))
	if _, err := io.ReadFull(c, make([]byte, wire.HandshakeSize)); err != nil {
		t.Fatal(err)
	}
	r := wire.NewReader(c, wire.Limits{Pieces: n.cfg.Info.NumPieces(), Block: testPiece})
	for {
		m, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if m.Type == wire.Extended && !m.KeepAlive && m.ExtendedID == wire.IDHandshake {
			theirs, err = wire.ParseHello(m.Payload)
			if err != nil || !theirs.CanProve() {
				t.Fatalf("hello %+v, %v", theirs, err)
			}
			break
		}
	}
	go io.Copy(io.Discard, c)
	return c, theirs
}

func nodeHello(info *metainfo.Info, key identity.Public) (h wire.Hello) {
	h.Client, h.Block, h.Budget = "fake", testPiece, info.Size
	h.Key, h.Nonce, h.M.Proof = key[:], make([]byte, wire.NonceSize), wire.IDProof
	return h
}

// Only who signs this connection's statement with the key that it names is a
// node. Everybody else is served all the same.
func TestWhoProvesItsKey(t *testing.T) {
	info, data := newImage(t, 4)
	n := start(t, info, "n", data)
	key, other := identitytest.Key(t, "a"), identitytest.Key(t, "b")
	public := key.Public()
	for what, test := range map[string]struct {
		change func(s *wire.Statement)
		signer identity.Key
		id     wire.PeerID
		ours   bool
	}{
		"right":               {func(*wire.Statement) {}, key, wire.PeerIDOf(public), true},
		"another's key":       {func(*wire.Statement) {}, other, wire.PeerIDOf(public), false},
		"another name":        {func(*wire.Statement) {}, key, wire.PeerIDOf(other.Public()), false},
		"an earlier nonce":    {func(s *wire.Statement) { s.Nonce = make([]byte, wire.NonceSize) }, key, wire.PeerIDOf(public), false},
		"for another node":    {func(s *wire.Statement) { s.Verifier = other.Public() }, key, wire.PeerIDOf(public), false},
		"of another image":    {func(s *wire.Statement) { s.Infohash[0]++ }, key, wire.PeerIDOf(public), false},
		"from another host":   {func(s *wire.Statement) { s.From = s.From.Next() }, key, wire.PeerIDOf(public), false},
		"to another host":     {func(s *wire.Statement) { s.To = s.To.Next() }, key, wire.PeerIDOf(public), false},
		"the other direction": {func(s *wire.Statement) { s.Signer, s.Verifier = s.Verifier, s.Signer }, key, wire.PeerIDOf(public), false},
	} {
		t.Run(what, func(t *testing.T) {
			c, hello := dial(t, n, test.id, nodeHello(info, public))
			s := wire.Statement{Infohash: info.Infohash, Signer: public, Verifier: identity.Public(hello.Key), Nonce: hello.Nonce,
				From: wire.AddressOf(c.LocalAddr()), To: wire.AddressOf(c.RemoteAddr())}
			test.change(&s)
			c.Write(wire.Extension(hello.M.Proof, s.Sign(test.signer)).Append(nil))
			eventually(t, "it is judged", func() bool {
				peers := n.Neighbours()
				return len(peers) == 1 && (peers[0].Kind == schedule.Node) == test.ours && (peers[0].ID == key.ID()) == test.ours
			})
			c.Close()
			eventually(t, "it is gone", func() bool { return len(n.Neighbours()) == 0 })
		})
	}
}

// A name on the wire that nobody proves keeps no node out, whoever comes first.
func TestNameThatIsNotProved(t *testing.T) {
	info, data := newImage(t, 8)
	origin := start(t, info, "origin", data)
	victim := wire.PeerIDOf(identitytest.Key(t, "victim").Public())
	var nobody wire.Hello
	nobody.Client = "pretender"
	_, _ = dial(t, origin, victim, nobody)
	_, _ = dial(t, origin, victim, nodeHello(info, identitytest.Key(t, "victim").Public())) // and never proves it
	eventually(t, "the pretender is there first", func() bool { return len(origin.Neighbours()) > 0 })
	n := start(t, info, "victim", nil)
	n.AddPeer(origin.Addr(), true)
	eventually(t, "complete", hasAll(n))
	check(t, n, data)
	c, err := net.Dial("tcp", origin.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write(wire.Extension(wire.IDHandshake, nobody.Payload()).Append(wire.Handshake{Infohash: info.Infohash, PeerID: victim, Fast: true, Extended: true}.Append(nil)))
	_, _ = io.Copy(io.Discard, c) // until it is turned away
	eventually(t, "only the node is left", func() bool {
		peers, _ := origin.Status()
		return len(peers) == 1 && peers[0].Ours
	})
}

// The first node is known by its address, whichever of the two dialled the other,
// and however late it was named.
func TestFirstNodeThatDials(t *testing.T) {
	info, data := newImage(t, 4)
	origin := start(t, info, "origin", data)
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} { // some have a smaller ID, some a greater
		n := start(t, info, name, nil)
		origin.AddPeer(n.Addr(), false)
		if name < "c" {
			eventually(t, "it is a peer", func() bool { return len(n.Neighbours()) == 1 })
		}
		n.AddPeer(origin.Addr(), true)
		eventually(t, "the first node is known", func() bool {
			peers := n.Neighbours()
			// or it is one that is dialled again and again, once more
			return len(peers) == 1 && peers[0].Kind == schedule.Origin && n.known() == 1
		})
	}
}

// BenchmarkIntroduction is what a connection costs both of its ends together
// for the proofs, and the bytes of it.
func BenchmarkIntroduction(b *testing.B) {
	one, two := identitytest.Key(b, "a"), identitytest.Key(b, "b")
	s := wire.Statement{Signer: one.Public(), Verifier: two.Public(), Nonce: bytes.Repeat([]byte{1}, wire.NonceSize)}
	info, _ := newImage(b, 1)
	with := len(wire.Extension(wire.IDHandshake, nodeHello(info, one.Public()).Payload()).Append(nil)) + len(wire.Extension(wire.IDProof, s.Sign(one)).Append(nil))
	without := nodeHello(info, one.Public())
	without.Key, without.Nonce, without.M.Proof = nil, nil, 0
	for b.Loop() {
		for range 2 {
			if !s.Verify(s.Sign(one)) {
				b.Fatal("refused")
			}
		}
	}
	b.ReportMetric(float64(with-len(wire.Extension(wire.IDHandshake, without.Payload()).Append(nil))), "bytes/end")
}
