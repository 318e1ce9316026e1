package swarm

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"viver.lan/internal/contain"
	"viver.lan/internal/copies"
	"viver.lan/internal/exchange"
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
	s.answer(exchange.Answer{})
	if store.unreadable.Load() != 1 {
		t.Errorf("a file that cannot be read: said %d times", store.unreadable.Load())
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

// A proof that is not that of our copy: ours is checked before the peer is blamed, and
// one that has rotted, or is cut off, is forgotten instead.
func TestProofOfARottenCopy(t *testing.T) {
	_, data := newImage(t, 4)
	piece := data[:testPiece]
	rotten := bytes.Clone(piece)
	rotten[testPiece/2] ^= 1
	for what, c := range map[string]struct {
		ours, theirs []byte
		forgotten    int32
	}{
		"both right":         {piece, piece, 0},
		"theirs is wrong":    {piece, rotten, 0},
		"ours has rotted":    {rotten, piece, 1},
		"ours is cut off":    {piece[:testPiece-1], piece, 1},
		"theirs is cut, too": {piece[:testPiece-1], piece[:testPiece-1], 1},
	} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "p")
			if err := os.WriteFile(path, c.ours, 0o600); err != nil {
				t.Fatal(err)
			}
			s, store := inFile(t, path, os.O_RDWR)
			asked := copies.Question{ID: s.cfg.Key.ID()}
			h := copies.NewDigest(asked.Nonce, asked.ID)
			h.Write(c.theirs)
			s.check(exchange.Check{Asked: asked, Digest: [wire.DigestSize]byte(h.Sum(nil))})
			if got := store.unreadable.Load(); got != c.forgotten || store.held.Load() != 0 {
				t.Errorf("forgotten %d times, want %d", got, c.forgotten)
			}
		})
	}
}
