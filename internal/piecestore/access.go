package piecestore

import (
	"fmt"
	"os"
)

// Ref is a held piece that will not be evicted before Release.
type Ref struct {
	s *Store
	f *os.File
	i int
}

// Acquire returns a reference to piece i if it is held.
func (s *Store) Acquire(i int) (Ref, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.pieces[i]
	if p.state != held {
		return Ref{}, false
	}
	s.tick++
	p.used = s.tick
	p.refs++
	return Ref{s, s.f, i}, true
}

// Release ends the use of the piece. Call it once. It frees the room of a piece that
// was dropped meanwhile, unless others still use that.
func (r Ref) Release() {
	if r.s.release(r.i) {
		_ = r.s.forget(r.i) // a hole or not, it is not held and gets overwritten whole
	}
}

// release reports whether the room of piece i is to be freed now; it is busy then.
func (s *Store) release(i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := &s.pieces[i]
	p.refs--
	last := p.refs == 0 && p.state == dropped
	if last {
		s.begin(i)
	}
	return last
}

// ReadAt fills p with the piece's bytes from off on.
func (r Ref) ReadAt(p []byte, off int64) error {
	if _, err := r.f.ReadAt(p, r.s.info.PieceOffset(r.i)+off); err != nil {
		return fmt.Errorf("read piece %d: %w", r.i, err)
	}
	return nil
}

// File returns the file that holds the piece and the piece's offset in it,
// for sendfile(2). The file's position must not be used.
func (r Ref) File() (*os.File, int64) { return r.f, r.s.info.PieceOffset(r.i) }

// Has reports whether piece i is held.
func (s *Store) Has(i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pieces[i].state == held
}

// Candidate reports whether piece i is one of Candidates.
func (s *Store) Candidate(i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pieces[i].unhashed()
}

// Held returns the pieces held.
func (s *Store) Held() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]int, 0, s.count)
	for i := range s.pieces {
		if s.pieces[i].state == held {
			out = append(out, i)
		}
	}
	return out
}

// Distrust says that the file has failed to give something: what else is held
// counts as found in the file of an earlier run, to be hashed before it is
// given out again. A caller that has acquired a piece goes on reading the file.
func (s *Store) Distrust() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.pieces {
		if p := &s.pieces[i]; p.state == held {
			p.state = candidate
			s.count--
		}
	}
}

// Count returns the number of pieces held.
func (s *Store) Count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}

// Budget returns how many bytes the store may hold.
func (s *Store) Budget() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.budget
}

// Used returns how many bytes it holds.
func (s *Store) Used() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

// Pinned reports whether piece i is pinned, held or not.
func (s *Store) Pinned(i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pieces[i].pinned
}

// Pin keeps piece i from being evicted, now or once it is held.
func (s *Store) Pin(i int) { s.setPinned(i, true) }

// Unpin lets piece i be evicted again.
func (s *Store) Unpin(i int) { s.setPinned(i, false) }

func (s *Store) setPinned(i int, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pieces[i].pinned = on
}

// Drop forgets piece i, for example because the disk below cannot read it any
// more, and its pin too. Whoever uses the piece is not waited for, since they may wait
// for the caller: they go on reading its bytes, whose room is freed after that.
func (s *Store) Drop(i int) error {
	if !s.beginDrop(i) {
		return nil
	}
	if err := s.forget(i); err != nil {
		return fmt.Errorf("drop piece %d: %w", i, err)
	}
	return nil
}

// beginDrop marks piece i as busy if there is something to forget.
func (s *Store) beginDrop(i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waitIdle(i)
	p := &s.pieces[i]
	if p.state == absent || p.state == dropped {
		return false
	}
	if p.state == held {
		s.count--
	}
	p.pinned = false
	s.begin(i)
	return true
}
