package vfield

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"viver.lan/internal/notify"
	"viver.lan/internal/piecestore"
)

// Four nodes and an origin: everybody gets everything, the origin sends it
// about once.
//
//	origin --+-- n0
//	         +-- n1      (n0-n3 find each other by peer exchange)
//	         +-- n2
//	         +-- n3
func TestFourNodesFetchAll(t *testing.T) {
	im := newImage(t, 24<<20+777)
	o := start(t, im, "origin", origin(im))
	var nodes []*testNode
	for i := range 4 {
		n := start(t, im, fmt.Sprintf("n%d", i), nil)
		for _, m := range nodes {
			n.AddPeer(m.Addr(), false)
		}
		nodes = append(nodes, n)
	}
	eventually(t, "nodes see each other", func() bool {
		for _, n := range nodes {
			if len(n.Status().Peers) < 3 {
				return false
			}
		}
		return true
	})
	for _, n := range nodes {
		n.AddPeer(o.Addr(), true)
	}
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() { readAll(t, n, im) })
	}
	wg.Wait()
	for _, n := range nodes {
		eventually(t, "a node holds everything", func() bool { return complete(n) })
		eventually(t, "a node says independent", func() bool { return n.Independence().Independent })
	}
	eventually(t, "the origin says independent", func() bool { return o.Independence().Independent })
	sent := float64(o.Status().Sent) / float64(im.info.Size)
	t.Logf("the origin sent %.2f x the image", sent)
	if sent > 1.5 { // far from the 4 of a plain server; benchmarks look closer
		t.Errorf("the origin sent %.2f x the image", sent)
	}
	eventually(t, "events tell", func() bool {
		return strings.Contains(nodes[0].events.String(), `"kind":"transfer"`) && strings.Contains(nodes[0].events.String(), `"independent":true`)
	})
}

func TestOneNode(t *testing.T) {
	im := newImage(t, 8<<20+5)
	o := start(t, im, "origin", origin(im))
	n := start(t, im, "n0", nil)
	n.AddPeer(o.Addr(), true)
	readAll(t, n, im)
	eventually(t, "complete", func() bool { return complete(n) })
	if s := n.Status(); s.FromOrigin != uint64(im.info.Size) || s.FromPeers != 0 || s.Wasted != 0 {
		t.Errorf("from origin %d, from peers %d, wasted %d, want %d, 0, 0", s.FromOrigin, s.FromPeers, s.Wasted, im.info.Size)
	}
}

// Peers come to know each other through the first node alone.
func TestPeerExchange(t *testing.T) {
	t.Parallel()
	im := newImage(t, 1<<20)
	o := start(t, im, "origin", origin(im))
	a, b := start(t, im, "a", nil), start(t, im, "b", nil)
	a.AddPeer(o.Addr(), true)
	b.AddPeer(o.Addr(), true)
	eventually(t, "a and b are connected", func() bool { return len(a.Status().Peers) == 2 && len(b.Status().Peers) == 2 })
}

// The origin dies when the nodes hold only parts. Reads wait, say so, and go
// on when it is back.
func TestOriginDiesMidway(t *testing.T) {
	t.Parallel()
	im := newImage(t, 16<<20)
	slow := func(c *Config, p *piecestore.Config) {
		c.Medium = &faultyMedium{r: bytes.NewReader(im.data), delay: 5 * time.Millisecond}
	}
	o := start(t, im, "origin", slow)
	addr := o.Addr()
	a, b := start(t, im, "a", nil), start(t, im, "b", nil)
	a.AddPeer(b.Addr(), false)
	a.AddPeer(addr, true)
	b.AddPeer(addr, true)
	eventually(t, "something has arrived", func() bool { return a.store.Count() > 10 && b.store.Count() > 10 })
	o.stop(t)
	eventually(t, "a lost the origin", func() bool { return len(a.Status().Peers) == 1 })
	ind := a.Independence()
	if ind.Independent || ind.Missing == 0 {
		t.Fatalf("independent with pieces missing: %+v", ind)
	}
	done := make(chan struct{})
	go func() { readAll(t, a, im); close(done) }()
	eventually(t, "the wait is reported", func() bool {
		return strings.Contains(a.events.String(), `"kind":"waiting"`) &&
			regexp.MustCompile(`waiting for piece \d+: 2 peers known, 1 answers, none has it`).MatchString(a.log.String())
	})
	eventually(t, "what is missing is said in plain words", func() bool {
		return regexp.MustCompile(`\d+ of 128 pieces are on no machine in reach, and the first node does not answer`).MatchString(a.log.String())
	})
	select {
	case <-done:
		t.Fatal("a read ended without its bytes")
	default:
	}
	// What one of the two holds both get.
	eventually(t, "a and b hold the same", func() bool { return a.store.Count() == b.store.Count() })

	start(t, im, "origin", func(c *Config, p *piecestore.Config) {
		slow(c, p)
		c.Listen = addr
	})
	<-done
	eventually(t, "complete", func() bool { return complete(a) && complete(b) })
	eventually(t, "independent", func() bool { return a.Independence().Independent })
	if s := a.Status(); s.OutOfReach != 0 {
		t.Errorf("still missing: %d", s.OutOfReach)
	}
}

// Every peer is gone: who waits is told for how long nobody has answered, on
// the console as in the status. One that comes back is enough.
func TestAllGoneThenOneBack(t *testing.T) {
	t.Parallel()
	im := newImage(t, 4<<20)
	const budget = 4 * testPiece // what was read is soon gone again
	var peers []*testNode
	n := start(t, im, "n", func(_ *Config, p *piecestore.Config) { p.Budget = budget })
	for _, name := range []string{"origin", "p1", "p2"} {
		p := start(t, im, name, origin(im))
		peers = append(peers, p)
		n.AddPeer(p.Addr(), name == "origin")
	}
	readAll(t, n, im)
	back := peers[1].Addr()
	for _, p := range peers {
		p.stop(t)
	}
	done := make(chan struct{})
	go func() { readAll(t, n, im); close(done) }()
	said := regexp.MustCompile(`waiting for piece \d+: 3 peers known, no answer for \d+ s`)
	eventually(t, "it is said", func() bool { return said.MatchString(n.log.String()) })
	s := n.Status()
	if len(s.Waiting) != 1 || !strings.HasPrefix(s.Waiting[0].String(), "3 peers known, no answer for ") {
		t.Errorf("the status says %+v", s.Waiting)
	}
	if s.OutOfReach != s.Pieces-s.Stored {
		t.Errorf("%d of %d pieces are here, %d out of reach", s.Stored, s.Pieces, s.OutOfReach)
	}
	start(t, im, "p1", func(c *Config, p *piecestore.Config) {
		origin(im)(c, p)
		c.Listen = back
	})
	<-done
	eventually(t, "nothing is missing", func() bool { return n.Status().OutOfReach == 0 })
}

// The first node dies when the others are independent: a node that comes
// later gets everything from them.
func TestLateNodeWithoutOrigin(t *testing.T) {
	im := newImage(t, 6<<20)
	o := start(t, im, "origin", origin(im))
	a := start(t, im, "a", nil)
	a.AddPeer(o.Addr(), true)
	eventually(t, "a is independent", func() bool { return a.Independence().Independent })
	o.stop(t)
	b := start(t, im, "b", nil)
	b.AddPeer(a.Addr(), false)
	readAll(t, b, im)
	if s := b.Status(); s.FromOrigin != 0 || s.FromPeers < uint64(im.info.Size) {
		t.Errorf("from origin %d, from peers %d", s.FromOrigin, s.FromPeers)
	}
	a.stop(t)
	eventually(t, "b notices that it is alone, and that this suffices", func() bool {
		return len(b.Status().Peers) == 0 && b.Independence().Independent
	})
}

// A node with little room reads everything right, twice, and never says
// independent.
func TestLittleRoom(t *testing.T) {
	im := newImage(t, 8<<20)
	o := start(t, im, "origin", origin(im))
	n := start(t, im, "n", func(_ *Config, p *piecestore.Config) { p.Budget = 1 << 20 })
	n.AddPeer(o.Addr(), true)
	for range 2 {
		readAll(t, n, im)
	}
	if u := n.store.Used(); u > n.store.Budget() {
		t.Errorf("used %d of %d", u, n.store.Budget())
	}
	eventually(t, "it says that it is not enough", func() bool {
		return n.Independence().String() == "image needs 8.4 MB, nodes offer 0.5: the first node must stay"
	})
	if oi := o.Independence(); oi.Independent {
		t.Errorf("the origin counts a node that keeps nothing: %+v", oi)
	}
	// Peers know what it has at the moment, no more: evictions are announced.
	eventually(t, "the origin knows what n holds", func() bool {
		ps := o.Status().Peers
		return len(ps) == 1 && ps[0].Have == n.store.Count()
	})
}

// Many readers at random places of a volume of which little fits: pieces are
// evicted under their hands all the time, and every read ends, right.
func TestLittleRoomManyReaders(t *testing.T) {
	t.Parallel()
	im := newImage(t, 8<<20)
	o := start(t, im, "origin", origin(im))
	a := start(t, im, "a", func(_ *Config, p *piecestore.Config) { p.Budget = 3 * testPiece })
	b := start(t, im, "b", func(_ *Config, p *piecestore.Config) { p.Budget = 1 << 20 })
	a.AddPeer(o.Addr(), true)
	a.AddPeer(b.Addr(), false)
	b.AddPeer(o.Addr(), true)
	ctx, cancel := context.WithTimeout(context.Background(), 2*deadline)
	defer cancel()
	var wg sync.WaitGroup
	for g := range 16 {
		n := a
		if g%2 == 0 {
			n = b
		}
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 5))
			for range 150 {
				p := make([]byte, 4096)
				off := rng.Int64N(n.Size() - 4096)
				if err := n.ReadAt(ctx, p, off); err != nil || !bytes.Equal(p, im.data[off:off+4096]) {
					t.Errorf("read at %d: wrong bytes (%v)", off, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// After kill -9 the store's pieces are served without the network; a flipped
// bit costs one piece.
func TestRestart(t *testing.T) {
	im := newImage(t, 4<<20)
	o := start(t, im, "origin", origin(im))
	n := start(t, im, "n", nil)
	n.AddPeer(o.Addr(), true)
	eventually(t, "complete", func() bool { return complete(n) })
	path := n.path
	n.stop(t)
	flip(t, path, 3*testPiece+9)
	again := start(t, im, "n", func(_ *Config, p *piecestore.Config) { p.Path = path })
	again.AddPeer(o.Addr(), true)
	readAll(t, again, im)
	eventually(t, "only the flipped piece came again", func() bool { return again.Status().FromOrigin == testPiece && complete(again) })
}

// Who has put pieces into the store before, such as those of another image that are the
// same, fetches none of them, and other nodes can have them.
func TestPiecesThatWereThereBefore(t *testing.T) {
	im := newImage(t, 4<<20)
	n := prepare(t, im, "n", nil)
	for i := range im.info.NumPieces() {
		at := int64(i) * im.info.PieceLength
		if _, err := n.store.Put(i, im.data[at:at+im.info.PieceSize(i)]); err != nil {
			t.Fatal(err)
		}
	}
	n.run(t)
	eventually(t, "nothing to be out of reach", func() bool { return n.Status().OutOfReach == 0 })
	other := start(t, im, "other", nil)
	other.AddPeer(n.Addr(), false)
	readAll(t, other, im)
}

// Demand reads of many readers for one piece ask for it once.
func TestConcurrentReaders(t *testing.T) {
	im := newImage(t, 4<<20)
	o := start(t, im, "origin", origin(im))
	n := start(t, im, "n", nil)
	var wg sync.WaitGroup
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	for g := range 16 {
		wg.Go(func() {
			for k := range 30 {
				off := int64((g*7919+k*104729)*4096) % (n.Size() - 4096)
				p := make([]byte, 4096)
				if err := n.ReadAt(ctx, p, off); err != nil || !bytes.Equal(p, im.data[off:off+4096]) {
					t.Errorf("read at %d: wrong bytes (%v)", off, err)
				}
			}
		})
	}
	time.Sleep(20 * time.Millisecond) // the first reads wait for a peer
	n.AddPeer(o.Addr(), true)
	wg.Wait()
	if s := n.Status(); s.Wasted != 0 {
		t.Errorf("%d bytes came twice", s.Wasted)
	}
}

func TestReadRefuses(t *testing.T) {
	im := newImage(t, 1<<20)
	n := start(t, im, "n", nil)
	for _, c := range []struct{ off, n int64 }{{-1, 10}, {1 << 20, 1}, {1<<20 - 5, 10}, {1 << 62, 10}} {
		if err := n.ReadAt(context.Background(), make([]byte, c.n), c.off); err == nil {
			t.Errorf("read of %d at %d", c.n, c.off)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := n.ReadAt(ctx, make([]byte, 10), 0); ctx.Err() == nil || err == nil {
		t.Errorf("a read without any source: %v", err)
	}
	if w := n.Status().Waiting; len(w) != 0 {
		t.Errorf("still waiting: %v", w)
	}
}

// Whoever asks for the status only when it is said to have changed knows it, ages
// excepted.
func TestChangesAreAnnounced(t *testing.T) {
	t.Parallel()
	im := newImage(t, 4<<20)
	follow := func(c *Config) (last func(n *testNode) bool) {
		changed := notify.NewSignal()
		c.Changed = changed.Send
		var s Status
		return func(n *testNode) bool { // reports whether s is the status
			select {
			case <-changed:
				s = n.Status()
			default:
			}
			now := n.Status()
			for _, x := range []*Status{&s, &now} {
				for i := range x.Waiting {
					x.Waiting[i].Seconds, x.Waiting[i].Silent = 0, 0
				}
			}
			return reflect.DeepEqual(s, now)
		}
	}
	m := &faultyMedium{r: bytes.NewReader(im.data)}
	var knowO, knowN func(*testNode) bool
	o := start(t, im, "origin", func(c *Config, p *piecestore.Config) { c.Medium, p.Budget, knowO = m, 1<<20, follow(c) })
	n := start(t, im, "n", func(c *Config, _ *piecestore.Config) { knowN = follow(c) })
	know := func(what string, is func() bool) {
		t.Helper()
		eventually(t, what, is)
		eventually(t, what+": its follower knows", func() bool { return knowN(n) })
	}
	n.AddPeer(o.Addr(), true)
	know("n has all", func() bool { return complete(n) })
	m.pull(true)
	readAll(t, o, im)
	eventually(t, "the follower of o knows that the medium is gone", func() bool { return o.Status().MediumGone && knowO(o) })
	o.stop(t)
	know("n is alone", func() bool { return len(n.Status().Peers) == 0 })
	n.Volume.store.discard(0)
	know("n has lost a piece", func() bool { return n.Status().Have == n.info.NumPieces()-1 })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- n.ReadAt(ctx, make([]byte, 1), 0) }()
	know("somebody waits for it", func() bool { return len(n.Status().Waiting) == 1 })
	cancel()
	<-done
	know("nobody waits any more", func() bool { return len(n.Status().Waiting) == 0 })
}
