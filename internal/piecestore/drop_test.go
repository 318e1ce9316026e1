package piecestore

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"
)

// drop drops a piece, and fails when that waits for somebody.
func drop(t *testing.T, s *Store, i int) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.Drop(i) }()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatalf("Drop(%d) waits for those who use the piece", i)
	}
}

// A piece is dropped while two read it, who may wait for whoever drops it: nobody
// else gets it, they go on reading, and the last of them frees its room.
func TestDropInUse(t *testing.T) {
	info, data := newImage(t, 3)
	path := filepath.Join(t.TempDir(), "p")
	s := open(t, Config{Path: path, Info: info, Budget: 2 * pieceLen})
	put(t, s, data, 0)
	put(t, s, data, 1)
	full := blocks(t, path)
	one, _ := s.Acquire(0)
	two, _ := s.Acquire(0)
	drop(t, s, 0)
	drop(t, s, 0) // the other reader has found the same
	if _, ok := s.Acquire(0); ok || s.Has(0) || s.Count() != 1 {
		t.Errorf("the dropped piece is held; count %d", s.Count())
	}
	one.Release()
	if s.Used() != 2*pieceLen || blocks(t, path) != full {
		t.Errorf("the room of a piece that is read was freed: %d bytes used", s.Used())
	}
	s.Pin(1)
	if _, err := s.Put(2, piecesOf(info, data, 2)); err == nil {
		t.Error("the room of a piece that is read went to another one")
	}
	got := make([]byte, pieceLen)
	if err := two.ReadAt(got, 0); err != nil || !bytes.Equal(got, piecesOf(info, data, 0)) {
		t.Errorf("a reader of the dropped piece has lost its bytes (%v)", err)
	}
	two.Release()
	if s.Used() != pieceLen || blocks(t, path) >= full {
		t.Errorf("%d bytes are used after the last reader, want %d", s.Used(), pieceLen)
	}
	put(t, s, data, 2)
	check(t, s, data, 2)
}

// A piece that was dropped and has come again is nobody's to free.
func TestDroppedPieceComesAgain(t *testing.T) {
	info, data := newImage(t, 2)
	s := open(t, Config{Path: filepath.Join(t.TempDir(), "p"), Info: info})
	put(t, s, data, 0)
	reader, _ := s.Acquire(0)
	drop(t, s, 0)
	put(t, s, data, 0)
	reader.Release()
	check(t, s, data, 0)
	if s.Used() != pieceLen || s.Count() != 1 {
		t.Errorf("%d bytes in %d pieces", s.Used(), s.Count())
	}
	// What comes again torn is forgotten as what was dropped.
	reader, _ = s.Acquire(0)
	drop(t, s, 0)
	if _, err := s.Put(0, piecesOf(info, data, 0)[:50]); err == nil {
		t.Error("a short piece was kept")
	}
	if s.Used() != pieceLen || s.Has(0) {
		t.Errorf("%d bytes used while somebody reads", s.Used())
	}
	reader.Release()
	if s.Used() != 0 {
		t.Errorf("%d bytes used by nothing", s.Used())
	}
}
