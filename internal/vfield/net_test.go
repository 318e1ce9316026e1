package vfield

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"viver.lan/internal/event"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/journal"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/piecestore"
)

const testPiece = 128 << 10

// image is a payload of random bytes.
type image struct {
	info    *metainfo.Info
	torrent []byte
	data    []byte
	dir     string
	nodes   byte // started so far
}

func newImage(t testing.TB, size int) *image {
	t.Helper()
	im := &image{data: make([]byte, size), dir: t.TempDir()}
	rand.NewChaCha8([32]byte{3}).Read(im.data)
	cut := size * 3 / 4
	var files []metainfo.Source
	for name, part := range map[string][]byte{"root.squashfs": im.data[:cut], "vmlinuz": im.data[cut:]} {
		p := filepath.Join(im.dir, name)
		if err := os.WriteFile(p, part, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"root.squashfs", "vmlinuz"} {
		files = append(files, metainfo.Source{Name: name, Path: filepath.Join(im.dir, name)})
	}
	var err error
	im.torrent, im.info, err = metainfo.Create("tiny", files, testPiece, nil)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// shm returns a directory in memory where possible.
func shm(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "viver-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// testNode is a node in this process.
type testNode struct {
	*Volume
	store  *piecestore.Store
	path   string
	cancel context.CancelFunc
	done   chan error
	events *journal.Journal
	log    *journal.Journal
}

// start runs a node on loopback, at an address of its own: each stands for a
// machine. change may alter its configuration.
func start(t testing.TB, im *image, name string, change func(*Config, *piecestore.Config)) *testNode {
	t.Helper()
	n := prepare(t, im, name, change)
	n.run(t)
	return n
}

// prepare makes a node that does not run yet.
func prepare(t testing.TB, im *image, name string, change func(*Config, *piecestore.Config)) *testNode {
	t.Helper()
	n := &testNode{path: filepath.Join(shm(t), "pieces"), done: make(chan error, 1), events: &journal.Journal{}, log: &journal.Journal{}}
	pc := piecestore.Config{Path: n.path, Info: im.info}
	cfg := Config{Info: im.info, Key: identitytest.Key(t, name), Listen: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, im.nodes + 1}), 0)}
	im.nodes++
	begin := time.Now()
	cfg.Events = event.NewLog("vfield", func() time.Duration { return time.Since(begin) }, n.events)
	cfg.Log = slog.New(slog.NewTextHandler(n.log, &slog.HandlerOptions{Level: slog.LevelDebug})).With("node", name)
	if change != nil {
		change(&cfg, &pc)
	}
	n.path = pc.Path
	var err error
	if n.store, err = piecestore.Open(pc); err != nil {
		t.Fatal(err)
	}
	cfg.Store = n.store
	if n.Volume, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		n.stop(t)
		if t.Failed() {
			t.Logf("log of %s:\n%s", name, tail(n.log.String(), 3000))
			t.Logf("status of %s: %+v", name, n.Status())
		}
	})
	return n
}

func (n *testNode) run(t testing.TB) {
	t.Helper()
	n.runPart(n.Run)
}

// runPart runs a part of the node only.
func (n *testNode) runPart(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() { n.done <- run(ctx) }()
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

func (n *testNode) stop(t testing.TB) {
	if n.cancel == nil {
		return
	}
	n.cancel()
	n.cancel = nil
	select {
	case err := <-n.done:
		if err != nil {
			t.Errorf("run: %v", err)
		}
	case <-time.After(deadline):
		t.Error("a node does not stop")
	}
	n.store.Close()
}

func origin(im *image) func(*Config, *piecestore.Config) {
	return func(c *Config, _ *piecestore.Config) { c.Medium = bytes.NewReader(im.data) }
}

// deadline is long: what is tested is that things happen, not how fast.
const deadline = 2 * time.Minute

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if f() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// readAll reads the whole volume in order and compares the digest.
func readAll(t testing.TB, n *testNode, im *image) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*deadline)
	defer cancel()
	h := sha256.New()
	buf := make([]byte, 100_000) // crosses pieces
	for off := int64(0); off < n.Size(); {
		p := buf[:min(int64(len(buf)), n.Size()-off)]
		if err := n.ReadAt(ctx, p, off); err != nil {
			t.Errorf("read at %d: %v", off, err)
			return
		}
		h.Write(p)
		off += int64(len(p))
	}
	if got, want := [32]byte(h.Sum(nil)), sha256.Sum256(im.data); got != want {
		t.Errorf("digest %x, want %x", got, want)
	}
}

func complete(n *testNode) bool { return n.store.Count() == n.info.NumPieces() }

var _ io.ReaderAt = (*Dir)(nil)
