package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"viver.lan/internal/control"
)

// The first node dies when the image is partly distributed. What exists stays
// and spreads to all, what is missing is said in plain words, reads of it wait
// and fail never; when the first node is back, everything goes on.
func TestNetnsOriginKilled(t *testing.T) {
	t.Parallel()
	r := newRoom(t, 5, 60, 256)
	if r == nil {
		return
	}
	for _, share := range []float64{0.1, 0.5, 0.9} {
		t.Run(fmt.Sprintf("at %.0f percent", share*100), func(t *testing.T) {
			r.t = t
			o := r.origin(0)
			var nodes []*machine
			for i := 1; i <= 4; i++ {
				nodes = append(nodes, r.start(i, r.know(0, 1, 2, 3, 4)...))
			}
			until(t, "the image is spread so far", func() bool { return r.spread(nodes) >= share })
			o.kill()
			// Whatever one of them has, all get.
			until(t, "all hold the same", func() bool {
				most := 0
				for _, n := range nodes {
					most = max(most, n.holds())
				}
				return !slices.ContainsFunc(nodes, func(n *machine) bool {
					s, err := n.status()
					return err != nil || s.Transfer.Have != most || s.OutOfReach != s.Transfer.Pieces-most
				})
			})
			have := nodes[0].holds()
			t.Logf("the network holds %d of %d pieces without its first node", have, r.info.NumPieces())
			if have < int(share*float64(r.info.NumPieces())) {
				t.Errorf("%d pieces stayed; they had %.0f %%", have, share*100)
			}
			var readers []*reader
			for _, n := range nodes {
				readers = append(readers, n.read(0))
			}
			if have < r.info.NumPieces() {
				missing := fmt.Sprintf(`^%d of %d pieces are on no machine in reach, and the first node does not answer`,
					r.info.NumPieces()-have, r.info.NumPieces())
				for _, n := range nodes {
					n.waits(missing, `^\d peers known, 3 answer, none has it`)
				}
				for _, read := range readers {
					if !read.running() {
						t.Errorf("a read of what nobody has ended: %v", read.err)
					}
				}
			}
			o.run()
			for _, read := range readers {
				read.finish()
			}
			r.complete(nodes...)
			for _, n := range nodes {
				n.kill()
			}
			o.kill()
		})
	}
}

// Two of eight nodes die while all read: one is killed, of the other the plug
// is pulled, which nobody is told of.
func TestNetnsQuarterDies(t *testing.T) {
	t.Parallel()
	r := newRoom(t, 9, 60, 256)
	if r == nil {
		return
	}
	r.origin(0)
	var nodes []*machine
	for i := 1; i <= 8; i++ {
		nodes = append(nodes, r.start(i, r.know(0, 1, 2, 3, 4, 5, 6, 7, 8)...))
	}
	var readers []*reader
	for i, n := range nodes {
		readers = append(readers, n.read(int64(i)*int64(len(r.data))/8))
	}
	until(t, "half of it is spread", func() bool { return r.spread(nodes) >= 0.5 })
	nodes[2].kill()
	if err := nodes[5].node.SetLink(false); err != nil {
		t.Fatal(err)
	}
	for i, read := range readers {
		if i == 2 || i == 5 {
			continue
		}
		read.finish()
		t.Logf("node %d: its slowest read took %v", i+1, read.slow.Round(time.Millisecond))
	}
	for i, n := range nodes {
		if i != 2 && i != 5 {
			r.complete(n)
		}
	}
	// Both are back: the one empty, the other with what it had.
	nodes[2].run()
	if err := nodes[5].node.SetLink(true); err != nil {
		t.Fatal(err)
	}
	r.complete(nodes[2], nodes[5])
	readers[2].finish()
	readers[5].finish()
}

// A network falls in two for a minute. The half with the first node goes on,
// the other keeps what it has and says what it waits for; healed, they find
// each other and no read has failed.
//
//	0 (first) 1 2 | 3 4 5
func TestNetnsPartition(t *testing.T) {
	t.Parallel()
	const lasts = 60 * time.Second
	r := newRoom(t, 6, 30, 256)
	if r == nil {
		return
	}
	gossip := func(i int) []string {
		return []string{"--gossip", r.bed.Node(i).AddrPort(gossipPort).String(), "--seed", r.bed.Node(0).AddrPort(gossipPort).String()}
	}
	r.origin(0, "--gossip", r.bed.Node(0).AddrPort(gossipPort).String())
	var nodes []*machine
	for i := 1; i <= 5; i++ {
		nodes = append(nodes, r.start(i, gossip(i)...))
	}
	until(t, "some of it is spread", func() bool { return r.spread(nodes) >= 0.3 })
	if err := r.bed.Partition([]int{3, 4, 5}); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	var readers []*reader
	for _, n := range nodes {
		readers = append(readers, n.read(0))
	}
	r.complete(nodes[:2]...)
	readers[0].finish()
	readers[1].finish()
	for _, n := range nodes[2:] {
		n.waits(`on no machine in reach, and the first node does not answer`, "")
	}
	until(t, "those apart hold the same", func() bool {
		return nodes[2].holds() == nodes[3].holds() && nodes[3].holds() == nodes[4].holds()
	})
	if r.spread(nodes[2:]) == 1 {
		t.Error("the half without the first node has everything: this test shows nothing")
	}
	time.Sleep(time.Until(begin.Add(lasts)))
	for _, read := range readers[2:] {
		if !read.running() {
			t.Errorf("a read of what is on the other side ended: %v", read.err)
		}
	}
	if err := r.bed.Heal(); err != nil {
		t.Fatal(err)
	}
	for _, read := range readers[2:] {
		read.finish()
	}
	r.complete(nodes...)
	for _, n := range nodes {
		until(t, "all six are members again", func() bool {
			s, err := n.status()
			return err == nil && len(s.Members) == 6 && !slices.ContainsFunc(s.Members, notAlive)
		})
	}
}

// A peer's process is frozen, with its connections open, in the middle of
// what it sends. The reader goes on with the others. Awake again the peer is
// used again. Then all of them are frozen, as machines do that are put to
// sleep and have all their timers run out at once when they wake.
func TestNetnsStoppedPeer(t *testing.T) {
	t.Parallel()
	r := newRoom(t, 4, 60, 256)
	if r == nil {
		return
	}
	o := r.origin(0)
	nodes := []*machine{r.start(1, r.know(0)...), r.start(2, r.know(0)...)}
	r.complete(nodes...)
	o.kill()
	// Little room: it has to ask for everything again on every pass.
	late := r.start(3, append(r.know(-1, 1, 2), "--cache", "2M")...)
	sent := func(m *machine) uint64 { return m.transfer().Sent }
	begin := time.Now()
	late.read(0).finish()
	usual := time.Since(begin)
	for _, stopped := range nodes {
		before := []uint64{sent(nodes[0]), sent(nodes[1])}
		read := late.read(0)
		begin := time.Now()
		until(t, "both are asked", func() bool { return sent(nodes[0]) > before[0]+1<<20 && sent(nodes[1]) > before[1]+1<<20 })
		if !read.running() {
			t.Fatal("too quick: nothing is shown")
		}
		stopped.signal(syscall.SIGSTOP)
		read.finish()
		took := time.Since(begin)
		t.Logf("one of two peers stopped: %v, the slowest read %v; before %v",
			took.Round(time.Millisecond), read.slow.Round(time.Millisecond), usual.Round(time.Millisecond))
		// It may cost two seconds beside the half of the speed that was its own.
		if took > 2*usual+10*time.Second {
			t.Errorf("a frozen peer cost the reader %v", took-usual)
		}
		stopped.signal(syscall.SIGCONT)
	}

	read := late.read(0)
	before := sent(nodes[0]) + sent(nodes[1])
	until(t, "it reads", func() bool { return sent(nodes[0])+sent(nodes[1]) > before })
	all := append(nodes, late)
	for _, m := range all {
		m.signal(syscall.SIGSTOP)
	}
	time.Sleep(7 * time.Second)
	for _, m := range all {
		m.signal(syscall.SIGCONT)
	}
	read.finish()
	t.Logf("all stopped for 7 s: the slowest read took %v", read.slow.Round(time.Millisecond))
}

// Every peer dies. The reader is told since when nobody answers. One of them,
// which kept its pieces, comes back, and that is enough.
func TestNetnsAllGoneThenOneBack(t *testing.T) {
	t.Parallel()
	r := newRoom(t, 4, 200, 128)
	if r == nil {
		return
	}
	o := r.origin(0)
	keeps := r.start(1, append(r.know(0), "--store", filepath.Join(t.TempDir(), "pieces"))...)
	loses := r.start(2, r.know(0)...)
	r.complete(keeps, loses)
	n := r.start(3, append(r.know(0, 1, 2), "--cache", "2M")...)
	n.read(0).finish()
	for _, m := range []*machine{o, keeps, loses} {
		m.kill()
	}
	if left, err := filepath.Glob("/dev/shm/*"); err != nil || len(left) > 0 {
		t.Errorf("killed processes leave pieces in memory: %v, %v", left, err)
	}
	read := n.read(0)
	n.waits("", `^3 peers known, no(ne)? answer`)
	keeps.run()
	read.finish()
	until(t, "nothing is out of reach", func() bool { s, err := n.status(); return err == nil && s.OutOfReach == 0 })
}

func notAlive(m control.Member) bool { return m.State != control.Alive }
