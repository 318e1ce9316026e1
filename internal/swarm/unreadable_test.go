package swarm

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"viver.lan/internal/contain"
	"viver.lan/internal/copies"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/swarm/wire"
)

// fileStore has its pieces in a file.
type fileStore struct {
	t testing.TB
	*memStore
	file       *os.File
	held       atomic.Int32 // pieces that are open
	unreadable atomic.Int32
}

type filePiece struct{ s *fileStore }

func (s *fileStore) Open(context.Context, int, bool) (Piece, error) {
	s.held.Add(1)
	return filePiece{s}, nil
}

// Unreadable fails when the caller still uses a piece: a store may wait for that.
func (s *fileStore) Unreadable(i int, err error) {
	s.unreadable.Add(1)
	if n := s.held.Load(); n != 0 {
		s.t.Errorf("piece %d cannot be read (%v), and %d are not released", i, err, n)
	}
}

func (p filePiece) File() (*os.File, int64) { return p.s.file, 0 }
func (p filePiece) Bytes() []byte           { return nil }
func (p filePiece) Release()                { p.s.held.Add(-1) }

// inFile runs a swarm that has its pieces in the file at path.
func inFile(t testing.TB, path string, flags int) (*Swarm, *fileStore) {
	t.Helper()
	file, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	info, _ := newImage(t, 4)
	store := &fileStore{t: t, memStore: &memStore{pieces: map[int][]byte{}}, file: file}
	s, err := New(Config{Info: info, Store: store, Key: identitytest.Key(t, "n"), Listen: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, s) })
	return s, store
}

// Whoever finds that a piece cannot be read has released it when the store hears
// of it: for a proof,
func TestUnreadableForAProof(t *testing.T) {
	s, store := inFile(t, filepath.Join(t.TempDir(), "p"), os.O_CREATE|os.O_WRONLY)
	if _, err := s.digest(0, copies.Nonce{}, s.cfg.Key.ID()); err == nil || store.unreadable.Load() != 1 {
		t.Errorf("a file that cannot be read: %v, said %d times", err, store.unreadable.Load())
	}
}

// and for a peer. A fault on the way leaves no piece in use either.
func TestUnreadableForAPeer(t *testing.T) {
	s, store := inFile(t, filepath.Join(t.TempDir(), "p"), os.O_CREATE|os.O_RDWR)
	near, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(s.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer near.Close()
	c := newConn(s, near)
	send := func(blk wire.Block) error {
		piece, _ := store.Open(t.Context(), blk.Piece, false)
		return contain.Call(s.log, "a block", func() error { return c.sendBlock(upload{blk, piece}) })
	}
	if err := send(wire.Block{Length: wire.BlockSize}); err == nil || store.unreadable.Load() != 1 {
		t.Errorf("a file that ends too early: %v, said %d times", err, store.unreadable.Load())
	}
	c.tcp = nil
	if err := send(wire.Block{Length: wire.BlockSize}); err == nil || store.held.Load() != 0 {
		t.Errorf("a fault: %v, %d pieces are in use", err, store.held.Load())
	}
}
