package swarm

import (
	"bytes"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"viver.lan/internal/swarm/wire"
)

func hasAll(s *testSwarm) func() bool {
	return func() bool { return s.store.count() == s.cfg.Info.NumPieces() }
}

// check compares what arrived with what was sent.
func check(t testing.TB, s *testSwarm, data []byte) {
	t.Helper()
	for i := range s.cfg.Info.NumPieces() {
		off := s.cfg.Info.PieceOffset(i)
		if !bytes.Equal(s.store.pieces[i], data[off:off+s.cfg.Info.PieceSize(i)]) {
			t.Errorf("piece %d has wrong bytes", i)
		}
	}
}

// Strangers get requests of 16 KiB, our nodes of whole pieces.
func TestRequestSizes(t *testing.T) {
	for _, ours := range []bool{false, true} {
		info, data := newImage(t, 6)
		f := newFake(info, data, "a")
		if ours {
			f.ours(t)
		}
		n := start(t, info, "n", nil)
		n.AddPeer(f.listen(t), false)
		eventually(t, "complete", hasAll(n))
		check(t, n, data)
		want := wire.BlockSize
		if ours {
			want = testPiece
		}
		longest := 0
		for _, b := range f.asked() {
			longest = max(longest, b.Length)
		}
		if longest != want {
			t.Errorf("ours %v: asked for up to %d bytes, want %d", ours, longest, want)
		}
		if _, st := n.Status(); st.Wasted != 0 || st.FromPeers != uint64(info.Size) {
			t.Errorf("%+v", st)
		}
	}
}

// A peer of BEP 3's days: no fast extension, no extension protocol, and it
// chokes in the middle, which means that requests are forgotten.
func TestOldPeerThatChokes(t *testing.T) {
	info, data := newImage(t, 6)
	f := newFake(info, data, "old")
	f.hs.Fast, f.hs.Extended = false, false
	served := 0
	var choked atomic.Bool
	f.serve = func(f *fake, c net.Conn, b wire.Block) error {
		if choked.Load() {
			return nil // on its way before the peer heard of the choke
		}
		if served++; served == 5 {
			choked.Store(true)
			c.Write(wire.Message{Type: wire.Choke}.Append(nil))
			time.AfterFunc(50*time.Millisecond, func() {
				choked.Store(false)
				c.Write(wire.Message{Type: wire.Unchoke}.Append(nil))
			})
			return nil
		}
		return f.right(c, b)
	}
	n := start(t, info, "n", nil)
	n.AddPeer(f.listen(t), false)
	eventually(t, "complete", hasAll(n))
	check(t, n, data)
}

// A peer that sends wrong bytes is found out, named and dropped, and nobody
// else is.
func TestWrongBytes(t *testing.T) {
	info, data := newImage(t, 24)
	liar, honest := newFake(info, data, "liar"), newFake(info, data, "honest")
	liar.serve = func(f *fake, c net.Conn, b wire.Block) error {
		bad := bytes.Clone(f.data)
		bad[info.PieceOffset(b.Piece)+int64(b.Begin)] ^= 1
		return (&fake{info: info, data: bad}).right(c, b)
	}
	n := start(t, info, "n", nil)
	n.AddPeer(liar.listen(t), false)
	// Beside the honest one it would be asked too little to be found out.
	eventually(t, "the liar is blamed", func() bool { return strings.Contains(n.log.String(), "with wrong bytes") })
	n.AddPeer(honest.listen(t), false)
	eventually(t, "complete", hasAll(n))
	check(t, n, data)
	eventually(t, "the liar is gone, the honest one still here", func() bool {
		peers, st := n.Status()
		return st.Failed > 0 && len(peers) == 1 && strings.Contains(peers[0].ID, "honest")
	})
}

// Peers that talk nonsense are dropped, the others go on.
func TestGarbage(t *testing.T) {
	info, data := newImage(t, 8)
	honest := newFake(info, data, "honest")
	n := start(t, info, "n", nil)
	greetings := map[string]func(c net.Conn){
		"huge length":      func(c net.Conn) { c.Write([]byte{0xff, 0xff, 0xff, 0xff, 7}) },
		"noise":            func(c net.Conn) { c.Write(bytes.Repeat([]byte{0x55, 0xaa, 3}, 9999)) },
		"have of piece 99": func(c net.Conn) { c.Write(wire.Message{Type: wire.Have, Block: wire.Block{Piece: 99}}.Append(nil)) },
		"bad hello":        func(c net.Conn) { c.Write(wire.Extension(0, []byte("d1:v-5:e")).Append(nil)) },
		"deep hello":       func(c net.Conn) { c.Write(wire.Extension(0, bytes.Repeat([]byte("l"), 60000)).Append(nil)) },
		"request beyond": func(c net.Conn) {
			c.Write(wire.Message{Type: wire.Request, Block: wire.Block{Piece: 1, Begin: 1 << 31, Length: 1 << 31}}.Append(nil))
		},
		"empty request": func(c net.Conn) { c.Write(wire.Message{Type: wire.Request, Block: wire.Block{Piece: 1}}.Append(nil)) },
		"spare bits":    func(c net.Conn) { c.Write([]byte{0, 0, 0, 3, 5, 0xff, 0xff}) },
	}
	for name, greet := range greetings {
		f := newFake(info, data, strings.ReplaceAll(name, " ", "")[:5])
		f.greet = greet
		n.AddPeer(f.listen(t), false)
	}
	// Things that are not BitTorrent at all.
	for _, s := range []string{"GET / HTTP/1.0\r\n\r\n", "\x13BitTorrent protocol", strings.Repeat("x", 100)} {
		c, err := net.Dial("tcp", n.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte(s))
	}
	n.AddPeer(honest.listen(t), false)
	eventually(t, "complete", hasAll(n))
	check(t, n, data)
	eventually(t, "only the honest one stays", func() bool {
		peers, _ := n.Status()
		return len(peers) == 1 && strings.Contains(peers[0].ID, "honest")
	})
}

// A peer answers, then falls silent in the middle of a block, as a stopped
// process does: the others take over, and what is there is not fetched twice.
func TestStalledPeer(t *testing.T) {
	info, data := newImage(t, 40)
	stuck, honest := newFake(info, data, "stuck"), newFake(info, data, "honest")
	release := make(chan struct{})
	served := 0
	stuck.ours(t)
	honest.ours(t)
	stuck.serve = func(f *fake, c net.Conn, b wire.Block) error {
		if served++; served > 3 {
			c.Write(wire.Message{Type: wire.Piece, Block: b}.Append(nil))
			c.Write(make([]byte, b.Length/2))
			<-release
		}
		return f.right(c, b)
	}
	honest.serve = func(f *fake, c net.Conn, b wire.Block) error {
		time.Sleep(5 * time.Millisecond) // so that both get their share
		return f.right(c, b)
	}
	n := start(t, info, "n", nil)
	n.AddPeer(stuck.listen(t), false)
	t.Cleanup(func() { close(release) })
	n.AddPeer(honest.listen(t), false)
	eventually(t, "complete", hasAll(n))
	check(t, n, data)
}

// A reader waits for a piece that only a slow peer was asked for: the peer is
// told that it is urgent, and after a while another one is asked.
func TestDemandIsHedged(t *testing.T) {
	info, data := newImage(t, 8)
	slow, quick := newFake(info, data, "slow"), newFake(info, data, "quick")
	slow.ours(t)
	quick.ours(t)
	slow.serve = func(*fake, net.Conn, wire.Block) error { return nil } // never
	n := start(t, info, "n", nil)
	n.wantNothing()
	n.AddPeer(slow.listen(t), false)
	eventually(t, "connected", func() bool { p, _ := n.Status(); return len(p) == 1 && p[0].Have == 8 })
	n.Demand(5)
	eventually(t, "the slow one is asked and told that it is urgent", func() bool {
		return slices.ContainsFunc(slow.heard(), func(m wire.Message) bool {
			return m.Type == wire.Extended && m.ExtendedID == wire.IDUrgent && bytes.Equal(m.Payload, []byte{0, 0, 0, 5})
		})
	})
	n.AddPeer(quick.listen(t), false)
	eventually(t, "the piece is here", func() bool { return n.store.Has(5) })
	eventually(t, "the slow one is told that it need not any more", func() bool {
		return slices.ContainsFunc(slow.heard(), func(m wire.Message) bool { return m.Type == wire.Cancel && m.Block.Piece == 5 })
	})
}

// Thousands of requests in one go: the queue is bounded, each gets an answer,
// and another peer is served meanwhile.
func TestRequestFlood(t *testing.T) {
	info, data := newImage(t, 8)
	n := start(t, info, "seed", data)
	c, err := net.Dial("tcp", n.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f := newFake(info, data, "flood")
	f.greet = func(c net.Conn) {
		go func() {
			var b []byte
			for k := range 10_000 {
				b = wire.Message{Type: wire.Request, Block: wire.Block{Piece: k % 8, Begin: (k / 8) % 50000, Length: 100}}.Append(b)
			}
			c.Write(b)
		}()
	}
	go f.talk(c)
	other := start(t, info, "n", nil)
	other.AddPeer(n.Addr(), false)
	eventually(t, "the other one is complete", hasAll(other))
	eventually(t, "every request is answered", func() bool {
		answers := 0
		for _, m := range f.heard() {
			if m.Type == wire.Piece || m.Type == wire.Reject {
				answers++
			}
		}
		return answers >= 9_000 // the same request twice in the queue is one
	})
}

// Two nodes that dial each other at the same moment end with one connection.
func TestSimultaneousDial(t *testing.T) {
	info, data := newImage(t, 4)
	a, b := start(t, info, "a", data), start(t, info, "b", nil)
	a.AddPeer(b.Addr(), false)
	b.AddPeer(a.Addr(), false)
	a.AddPeer(a.Addr(), false) // itself, which is nobody
	eventually(t, "complete", hasAll(b))
	eventually(t, "one connection", func() bool {
		pa, _ := a.Status()
		pb, _ := b.Status()
		return len(pa) == 1 && len(pb) == 1
	})
	time.Sleep(time.Second)
	if p, _ := a.Status(); len(p) != 1 {
		t.Errorf("%d connections", len(p))
	}
}

// A peer that is not there yet is dialled until it is; gone and back, again.
func TestReconnect(t *testing.T) {
	info, data := newImage(t, 4)
	f := newFake(info, data, "a")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().(*net.TCPAddr).AddrPort()
	n := start(t, info, "n", nil)
	n.AddPeer(addr, false)
	for range 2 { // hangs up twice
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	defer c.Close()
	go f.talk(c)
	eventually(t, "complete", hasAll(n))
}
