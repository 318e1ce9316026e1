package vfield

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"viver.lan/internal/piecestore"
	"viver.lan/internal/swarm/wire"
)

// What a cache disk does to the file of a store, and what a kill leaves of it.
// What peers do is tested in package swarm, what media do in medium_test.go, what
// whole processes do in cmds/vfield.

// cut makes the last pieces of a store's file unreadable: reads of them fail
// as those of a disk with bad sectors do.
func cut(t *testing.T, n *testNode, pieces int) {
	t.Helper()
	if err := os.Truncate(n.path, n.info.PieceOffset(n.info.NumPieces()-pieces)); err != nil {
		t.Fatal(err)
	}
}

// A store that cannot read what it holds forgets it; readers get the bytes
// from the network and notice nothing else.
func TestStoreReadError(t *testing.T) {
	im := newImage(t, 4<<20)
	o := start(t, im, "origin", origin(im))
	n := start(t, im, "n", nil)
	n.AddPeer(o.Addr(), true)
	eventually(t, "complete", func() bool { return complete(n) })
	cut(t, n, 5)
	readAll(t, n, im)
	eventually(t, "it holds them again", func() bool { return complete(n) })
	if s := n.Status(); s.FromOrigin != uint64(im.info.Size)+5*testPiece {
		t.Errorf("fetched %d bytes, want five pieces of %d again", s.FromOrigin, im.info.Size)
	}
	if !strings.Contains(n.log.String(), "cannot read what it holds") {
		t.Error("the log says nothing")
	}
}

// What a daemon that was killed has left is hashed by who reads it, and not fetched again,
// whether the machine boots or has booted: only what is wrong in it is.
func TestWhatIsLeftIsNotFetched(t *testing.T) {
	im := newImage(t, 8<<20)
	o := start(t, im, "origin", origin(im))
	for name, booting := range map[string]bool{"up": false, "booting": true} {
		n := prepare(t, im, name, func(_ *Config, p *piecestore.Config) {
			left := bytes.Clone(im.data)
			left[20*testPiece]++
			if err := os.WriteFile(p.Path, left, 0o600); err != nil {
				t.Fatal(err)
			}
		})
		n.DemandOnly(booting)
		n.Expect(nil)
		n.runPart(n.swarm.Run) // not the part that hashes what nobody reads
		n.AddPeer(o.Addr(), true)
		eventually(t, "it knows who has everything", func() bool { s := n.Status(); return len(s.Peers) == 1 && s.Peers[0].Have == s.Pieces })
		readAll(t, n, im)
		if s := n.Status(); s.FromOrigin != testPiece || s.Have != s.Pieces {
			t.Errorf("%s: fetched %d bytes, want one piece; %d of %d are held", name, s.FromOrigin, s.Have, s.Pieces)
		}
	}
}

// The same when a peer asks first: it is not kept waiting for a piece that
// cannot be read, and what it gets is right.
func TestStoreReadErrorWhileServing(t *testing.T) {
	t.Parallel()
	im := newImage(t, 4<<20)
	o := start(t, im, "origin", origin(im))
	n := start(t, im, "n", nil)
	n.AddPeer(o.Addr(), true)
	eventually(t, "complete", func() bool { return complete(n) })
	// Writing the last one again makes the file longer: what lies before it
	// then reads as zeros, as from a disk that does not say what it lost.
	cut(t, n, 8)
	late := start(t, im, "late", nil)
	late.AddPeer(n.Addr(), false)
	readAll(t, late, im)
	eventually(t, "both hold all", func() bool { return complete(n) && complete(late) })
	if !strings.Contains(n.log.String(), "cannot read what it holds") {
		t.Error("the log says nothing")
	}
	if s := late.Status(); s.Failed > 2 { // those on their way when the loss is noticed
		t.Errorf("%d pieces with wrong bytes were sent", s.Failed)
	}
}

// The same when a stranger asks: it asks for a piece in many blocks at once, so that
// one of them is open while another one cannot be read. Readers here do not wait for
// that stranger.
func TestStoreReadErrorInBlocks(t *testing.T) {
	t.Parallel()
	im := newImage(t, 1<<20)
	o := start(t, im, "origin", origin(im))
	n := start(t, im, "n", nil)
	n.AddPeer(o.Addr(), true)
	eventually(t, "complete", func() bool { return complete(n) })
	cut(t, n, 1)
	last := im.info.NumPieces() - 1
	c, err := net.Dial("tcp", n.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := wire.Handshake{Infohash: im.info.Infohash, PeerID: wire.PeerID([]byte("-XX0000-abcdefghijkl"))}.Append(nil)
	b = wire.Message{Type: wire.Interested}.Append(b)
	for off := 0; off < testPiece; off += wire.BlockSize {
		b = wire.Message{Type: wire.Request, Block: wire.Block{Piece: last, Begin: off, Length: wire.BlockSize}}.Append(b)
	}
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loss is noticed", func() bool { return strings.Contains(n.log.String(), "cannot read what it holds") })
	readAll(t, n, im)
	eventually(t, "it holds them again", func() bool { return complete(n) })
}

// A file that gives nothing any more is found by a proof, when nobody reads: the piece
// is forgotten while it is in use for that, and after a few of them the file is given
// up.
func TestStoreReadErrorInProofs(t *testing.T) {
	t.Parallel()
	im := newImage(t, 4<<20)
	o := start(t, im, "origin", origin(im))
	var nodes []*testNode
	for _, name := range []string{"a", "b", "c"} {
		n := start(t, im, name, func(c *Config, _ *piecestore.Config) {
			c.Fallback = piecestore.Config{Path: filepath.Join(shm(t), "memory")}
		})
		for _, other := range append(nodes, o) {
			n.AddPeer(other.Addr(), other == o)
		}
		nodes = append(nodes, n)
	}
	eventually(t, "complete", func() bool { return complete(nodes[0]) && complete(nodes[1]) && complete(nodes[2]) })
	n := nodes[2]
	unreadable(t, n)
	eventually(t, "the file is given up", func() bool { return n.Volume.store.moved.Load() })
	readAll(t, n, im)
	eventually(t, "it holds all in memory", func() bool { return complete(n) })
	n.stop(t)
}

// A disk that lost what it holds and does not say so is found by the proofs of others,
// which are another than those of the copies here: nobody else is blamed.
func TestRottenCopiesBlameNobody(t *testing.T) {
	t.Parallel()
	im := newImage(t, 2<<20)
	o := start(t, im, "origin", origin(im))
	a, n := start(t, im, "a", nil), start(t, im, "n", nil)
	a.AddPeer(o.Addr(), true)
	n.AddPeer(o.Addr(), true)
	n.AddPeer(a.Addr(), false)
	eventually(t, "complete", func() bool { return complete(a) && complete(n) })
	f, err := os.OpenFile(n.path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, im.info.Size), 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the loss is noticed", func() bool { return strings.Contains(n.log.String(), "cannot read what it holds") })
	eventually(t, "all else was hashed, too", func() bool { return strings.Contains(n.log.String(), "pieces found in the store hashed") })
	eventually(t, "it holds all again", func() bool { return complete(n) })
	readAll(t, n, im)
	if strings.Contains(n.log.String(), "did not prove") {
		t.Error("a peer was blamed")
	}
}

// unreadable makes all reads of a store's file fail.
func unreadable(t *testing.T, n *testNode) {
	t.Helper()
	ref, ok := n.store.Acquire(0)
	if !ok {
		t.Fatal("the store is empty")
	}
	defer ref.Release()
	file, _ := ref.File()
	blind, err := os.OpenFile(n.path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer blind.Close()
	if err := syscall.Dup3(int(blind.Fd()), int(file.Fd()), syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
}

// inMounts runs the rest of the test as root of new user and mount
// namespaces.
func inMounts(t *testing.T) bool {
	t.Helper()
	const mark = "VFIELD_IN_NS"
	if os.Getenv(mark) != "" {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run", "^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		t.Skipf("this kernel allows no user namespace: %v", err)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// A cache disk with less room than the budget says: every read ends, right,
// and the node does not fetch for ever what it cannot keep.
func TestNetnsCacheDiskFull(t *testing.T) {
	if !inMounts(t) {
		return
	}
	im := newImage(t, 8<<20)
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=3m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	o := start(t, im, "origin", origin(im))
	n := start(t, im, "n", func(_ *Config, p *piecestore.Config) { p.Path = filepath.Join(dir, "pieces") })
	n.AddPeer(o.Addr(), true)
	for range 2 {
		readAll(t, n, im)
	}
	if n.store.Count() < 2<<20/testPiece {
		t.Errorf("only %d pieces are kept", n.store.Count())
	}
	if l := n.log.String(); !strings.Contains(l, "is full") {
		t.Error("the log does not say that the disk is full")
	}
	// Both passes, what came before the first, and no more.
	if s := n.Status(); s.FromOrigin > 4*uint64(im.info.Size) {
		t.Errorf("fetched %d bytes for an image of %d", s.FromOrigin, im.info.Size)
	}
	if ind := n.Independence(); ind.Independent {
		t.Errorf("independent of the first node with half the image: %+v", ind)
	}
}

// A daemon killed in the middle of its writes leaves pieces half written and
// pieces never begun; the next one believes none of them. Ten times over.
func TestTornWrites(t *testing.T) {
	im := newImage(t, 4<<20)
	path := filepath.Join(shm(t), "pieces")
	at := func(_ *Config, p *piecestore.Config) { p.Path = path }
	o := start(t, im, "origin", origin(im))
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10 {
		n := start(t, im, "n", at)
		n.AddPeer(o.Addr(), true)
		readAll(t, n, im)
		eventually(t, "complete", func() bool { return complete(n) })
		n.stop(t)
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		for range 6 {
			// From somewhere in a piece to its end the bytes never arrived.
			i := rng.IntN(im.info.NumPieces())
			from := rng.Int64N(im.info.PieceSize(i))
			if _, err := f.WriteAt(make([]byte, im.info.PieceSize(i)-from), im.info.PieceOffset(i)+from); err != nil {
				t.Fatal(err)
			}
		}
		f.Close()
	}
}
