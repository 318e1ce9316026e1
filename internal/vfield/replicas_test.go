package vfield

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/piecestore"
)

func budget(bytes int64) func(*Config, *piecestore.Config) {
	return func(_ *Config, p *piecestore.Config) { p.Budget = bytes }
}

// introduce names every node to every other.
func introduce(nodes ...*testNode) {
	for i, n := range nodes {
		for _, m := range nodes[:i] {
			n.AddPeer(m.Addr(), false)
		}
	}
}

// bounded fails the test when a node holds more than its budget allows.
func bounded(t *testing.T, nodes ...*testNode) {
	t.Helper()
	for _, n := range nodes {
		if u := n.store.Used(); u > n.store.Budget() {
			t.Errorf("%d bytes used of %d", u, n.store.Budget())
		}
	}
}

// received is all that nodes have fetched.
func received(nodes ...*testNode) (sum uint64) {
	for _, n := range nodes {
		s := n.Status()
		sum += s.FromOrigin + s.FromPeers
	}
	return sum
}

// quiet waits until nothing is fetched any more, and fails the test when that
// never ends.
func quiet(t *testing.T, nodes ...*testNode) {
	t.Helper()
	var last uint64
	since := time.Now()
	eventually(t, "the nodes come to rest", func() bool {
		if sum := received(nodes...); sum != last {
			last, since = sum, time.Now()
		}
		return time.Since(since) > 8*time.Second
	})
}

// A node with a cache of 64 MB runs from a 256 MB image and reads all of it
// twice, right.
func TestSmallCacheReadsLargeImage(t *testing.T) {
	t.Parallel()
	im := newImage(t, 256<<20)
	o := start(t, im, "origin", origin(im))
	n := start(t, im, "n", budget(64<<20))
	n.AddPeer(o.Addr(), true)
	for range 2 {
		readAll(t, n, im)
		bounded(t, n)
	}
	if s := n.Status(); s.FromOrigin > 3*uint64(im.info.Size) {
		t.Errorf("fetched %d MB to read %d MB twice", s.FromOrigin>>20, im.info.Size>>20)
	}
}

// Four nodes that hold half of the image each: two copies of every piece, the
// origin goes, everything is read twice on each, nobody exceeds its budget,
// and then there is rest.
func TestSmallNodesKeepTheImageTogether(t *testing.T) {
	t.Parallel()
	im := newImage(t, 16<<20+99)
	o := start(t, im, "origin", origin(im))
	var nodes []*testNode
	for i := range 4 {
		nodes = append(nodes, start(t, im, fmt.Sprintf("n%d", i), budget(11<<20)))
	}
	introduce(nodes...)
	for _, n := range nodes {
		n.AddPeer(o.Addr(), true)
	}
	for _, n := range append(nodes, o) {
		eventually(t, "the origin may leave", func() bool {
			s := n.Status()
			return s.Independence.Independent && s.Independence.Replicas == 2
		})
	}
	o.stop(t)
	var wg sync.WaitGroup
	for _, n := range nodes {
		wg.Go(func() { readAll(t, n, im); readAll(t, n, im) })
	}
	wg.Wait()
	bounded(t, nodes...)
	quiet(t, nodes...)
	// One more goes: what it held is pinned again while copies are left.
	nodes[0].stop(t)
	rest := nodes[1:]
	eventually(t, "nothing is lost", func() bool { s := rest[0].Status(); return s.OutOfReach == 0 && s.Independence.Replicas >= 1 })
	for _, n := range rest {
		wg.Go(func() { readAll(t, n, im) })
	}
	wg.Wait()
	bounded(t, rest...)
}

// A node is connected to a part of a large network, and told how large it is.
func TestFiveCopiesInALargeNetwork(t *testing.T) {
	t.Parallel()
	im := newImage(t, 4<<20)
	o := start(t, im, "origin", origin(im))
	var nodes []*testNode
	for i := range 12 {
		nodes = append(nodes, start(t, im, fmt.Sprintf("n%d", i), budget(11<<18)))
	}
	introduce(nodes...)
	for _, n := range nodes {
		n.AddPeer(o.Addr(), true)
	}
	copies := func(want int) func() bool {
		return func() bool {
			return !slices.ContainsFunc(nodes, func(n *testNode) bool { return n.Status().Independence.Replicas != want })
		}
	}
	eventually(t, "four copies of each piece among the twelve", copies(4))
	for _, n := range nodes {
		n.SetNodes(101)
	}
	// The next change of the members is acted on by the new number.
	late := start(t, im, "late", budget(11<<18))
	nodes = append(nodes, late)
	introduce(nodes...)
	late.AddPeer(o.Addr(), true)
	late.SetNodes(101)
	eventually(t, "five where there are a hundred more", copies(5))
}

// Three nodes have together less room than the image needs: the first node has
// to stay, that is said, all is read right, and nothing is fetched and thrown
// away for ever.
func TestTooLittleRoomTogether(t *testing.T) {
	t.Parallel()
	im := newImage(t, 16<<20)
	o := start(t, im, "origin", origin(im))
	var nodes []*testNode
	for i := range 3 {
		nodes = append(nodes, start(t, im, fmt.Sprintf("n%d", i), budget(4<<20)))
	}
	introduce(nodes...)
	for _, n := range nodes {
		n.AddPeer(o.Addr(), true)
	}
	for _, n := range append(nodes, o) {
		eventually(t, "the shortfall is said", func() bool {
			s := n.Status()
			return s.Independence.Replicas == 0 && s.Independence.Short && s.Independence.Offered < s.Independence.Needed
		})
	}
	var wg sync.WaitGroup
	for g, n := range append(nodes, nodes...) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 9))
			ctx, cancel := context.WithTimeout(context.Background(), 2*deadline)
			defer cancel()
			if g < len(nodes) {
				readAll(t, n, im)
				return
			}
			for range 200 {
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
	bounded(t, nodes...)
	quiet(t, nodes...)
	for _, n := range nodes {
		if s := n.Status(); s.Pinned == 0 || s.Stored < s.Pinned || strings.Contains(n.log.String(), "peer lost") {
			t.Errorf("%d pieces pinned, %d stored; log:\n%s", s.Pinned, s.Stored, n.log.String())
		}
	}
}

// A node that joins takes its share over; the others unpin what it holds, and
// not before.
func TestReplacedBeforeUnpinned(t *testing.T) {
	t.Parallel()
	im := newImage(t, 16<<20)
	o := start(t, im, "origin", origin(im))
	a, b := start(t, im, "a", budget(12<<20)), start(t, im, "b", budget(12<<20))
	introduce(a, b)
	a.AddPeer(o.Addr(), true)
	b.AddPeer(o.Addr(), true)
	eventually(t, "a and b keep everything", func() bool { return a.Independence().Independent && b.Independence().Independent })
	before := a.Status().Pinned + b.Status().Pinned
	o.stop(t)
	// From here on no piece may ever be on no machine.
	stop := make(chan struct{})
	var watcher sync.WaitGroup
	watcher.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if n, _ := a.outOfReach(); n > 0 {
				t.Errorf("%d pieces are on no machine", n)
				return
			}
		}
	})
	var more []*testNode
	for i := range 6 {
		more = append(more, start(t, im, fmt.Sprintf("m%d", i), budget(12<<20)))
	}
	introduce(append([]*testNode{a, b}, more...)...)
	eventually(t, "four copies of each", func() bool { return a.Status().Independence.Replicas == 4 && b.Status().Independence.Replicas == 4 })
	eventually(t, "a and b unpin what others keep", func() bool { return a.Status().Pinned+b.Status().Pinned < before })
	close(stop)
	watcher.Wait()
	quiet(t, append(more, a, b)...)
	bounded(t, append(more, a, b)...)
}

// A node whose cache disk fails goes on in memory, with less room, and says so.
func TestCacheDiskFails(t *testing.T) {
	t.Parallel()
	im := newImage(t, 8<<20)
	o := start(t, im, "origin", origin(im))
	n := start(t, im, "n", func(c *Config, p *piecestore.Config) {
		c.Fallback = piecestore.Config{Path: filepath.Join(shm(t), "memory"), Budget: 4 << 20}
	})
	n.AddPeer(o.Addr(), true)
	eventually(t, "complete", func() bool { return complete(n) })
	cut(t, n, 5)
	for range 2 {
		readAll(t, n, im)
	}
	eventually(t, "it goes on in memory", func() bool {
		s := n.Status()
		return s.Budget == 4<<20 && strings.Contains(s.Note, "cache disk is not used any more")
	})
	eventually(t, "the others know", func() bool {
		p := o.Status().Peers
		return len(p) == 1 && p[0].Budget == 4<<20 && p[0].Have == n.store.Count() && o.Independence().Missing > 0
	})
	bounded(t, n)
}

// A cache disk that cannot be written is given up the same way.
func TestCacheDiskRefusesWrites(t *testing.T) {
	t.Parallel()
	im := newImage(t, 2<<20)
	o := start(t, im, "origin", origin(im))
	n := start(t, im, "n", func(c *Config, p *piecestore.Config) {
		c.Fallback = piecestore.Config{Path: filepath.Join(shm(t), "memory")}
	})
	n.Volume.store.onPutError(piecestore.ErrFull)
	n.Volume.store.onPutError(fmt.Errorf("keep piece 3: %w", unix.ENOSPC))
	if note := n.Volume.store.note(); note != "" {
		t.Fatalf("a full disk is no broken one: %s", note)
	}
	n.AddPeer(o.Addr(), true)
	eventually(t, "complete", func() bool { return complete(n) })
	n.Volume.store.onPutError(fmt.Errorf("keep piece 3: %w", unix.EIO))
	if note := n.Volume.store.note(); !strings.Contains(note, "input/output error") {
		t.Errorf("note %q", note)
	}
	readAll(t, n, im)
	eventually(t, "all is in memory", func() bool { return complete(n) })
}

// TestNetnsCacheDiskShrinks fills the cache disk from elsewhere: the node keeps
// less, tells the others, and reads right.
func TestNetnsCacheDiskShrinks(t *testing.T) {
	if !inMounts(t) {
		return
	}
	disk := t.TempDir()
	if err := syscall.Mount("none", disk, "tmpfs", 0, "size=5m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(disk, syscall.MNT_DETACH) })
	im := newImage(t, 8<<20)
	o := start(t, im, "origin", origin(im))
	memory := filepath.Join(shm(t), "memory")
	n := start(t, im, "n", func(c *Config, p *piecestore.Config) {
		p.Path = filepath.Join(disk, "pieces")
		c.Fallback = piecestore.Config{Path: memory, Budget: 2 << 20}
	})
	n.AddPeer(o.Addr(), true)
	eventually(t, "it works with what the disk has", func() bool {
		s := n.Status()
		p := o.Status().Peers
		return s.Budget < 6<<20 && s.Budget > 3<<20 && strings.Contains(s.Note, "full") && len(p) == 1 && p[0].Budget == s.Budget
	})
	readAll(t, n, im)
	bounded(t, n)
	// Somebody else takes nearly all of it, as soon as there is room: memory is better
	// than the rest.
	other, err := os.Create(filepath.Join(disk, "other"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	eventually(t, "it goes on in memory", func() bool {
		for k, i := range n.store.Held() {
			if k >= 4 {
				n.Volume.store.discard(i)
			}
		}
		_, _ = other.Write(make([]byte, 8<<20)) // until it is full
		readAll(t, n, im)
		return n.Status().Budget == 2<<20
	})
	readAll(t, n, im)
	bounded(t, n)
}
