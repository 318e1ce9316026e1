package piecestore

import (
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// The store goes on with another file; who holds a piece of the old one reads
// it to the end.
func TestMoveTo(t *testing.T) {
	info, data := newImage(t, 6)
	dir := t.TempDir()
	s := open(t, Config{Path: filepath.Join(dir, "disk"), Info: info})
	for i := range 6 {
		put(t, s, data, i)
	}
	s.Pin(3)
	ref, _ := s.Acquire(2)
	if err := s.MoveTo(filepath.Join(dir, "no", "such"), 0); err == nil {
		t.Fatal("moved to nowhere")
	}
	if s.Count() != 6 || s.Budget() != info.Size {
		t.Fatalf("a move that failed left %d pieces and a budget of %d", s.Count(), s.Budget())
	}
	if err := s.MoveTo(filepath.Join(dir, "memory"), 3*pieceLen); err != nil {
		t.Fatal(err)
	}
	if s.Count() != 0 || s.Used() != 0 || s.Budget() != 3*pieceLen {
		t.Errorf("%d held, %d used, budget %d", s.Count(), s.Used(), s.Budget())
	}
	for _, i := range []int{3, 2, 5} {
		put(t, s, data, i)
		check(t, s, data, i)
	}
	got := make([]byte, pieceLen)
	if err := ref.ReadAt(got, 0); err != nil || !slices.Equal(got, piecesOf(info, data, 2)) {
		t.Errorf("the piece acquired before the move: %v", err)
	}
	ref.Release()
	if ev := put(t, s, data, 0); !slices.Equal(ev, []int{2}) {
		t.Errorf("evicted %v, want 2: 3 stays pinned", ev)
	}
}

// MoveTo waits for writers and readers that are at it.
func TestMoveUnderLoad(t *testing.T) {
	info, data := newImage(t, 32)
	dir := t.TempDir()
	s := open(t, Config{Path: filepath.Join(dir, "a"), Info: info})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for n := range 600 {
			i := n * 7 % 32
			if _, err := s.Put(i, piecesOf(info, data, i)); err != nil {
				t.Error(err)
			}
			checkIfHeld(t, s, data, i)
		}
	}()
	for n := range 5 {
		time.Sleep(time.Millisecond)
		if err := s.MoveTo(filepath.Join(dir, string(rune('b'+n))), 0); err != nil {
			t.Error(err)
		}
	}
	<-done
	for _, i := range s.Held() {
		check(t, s, data, i)
	}
}

// checkIfHeld is check for a piece that may be gone by now.
func checkIfHeld(t *testing.T, s *Store, data []byte, i int) {
	ref, ok := s.Acquire(i)
	if !ok {
		return
	}
	defer ref.Release()
	got := make([]byte, s.info.PieceSize(i))
	if err := ref.ReadAt(got, 0); err != nil || !slices.Equal(got, piecesOf(s.info, data, i)) {
		t.Errorf("piece %d: wrong bytes (%v)", i, err)
	}
}

// What many others have goes before what is a little older.
func TestEvictsWhatOthersHave(t *testing.T) {
	info, data := newImage(t, 10)
	s := open(t, Config{Path: filepath.Join(t.TempDir(), "p"), Info: info, Budget: 4 * pieceLen})
	for i := range 4 {
		put(t, s, data, i)
	}
	others := make([]uint8, 10)
	others[2] = 3
	s.SetOthers(others)
	if ev := put(t, s, data, 4); !slices.Equal(ev, []int{2}) {
		t.Errorf("evicted %v, want 2, which three others have", ev)
	}
	if ev := put(t, s, data, 5); !slices.Equal(ev, []int{0}) {
		t.Errorf("evicted %v, want 0, the oldest", ev)
	}
}
