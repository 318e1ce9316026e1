// Package piecestore keeps the verified pieces of one image in one sparse
// file, on a tmpfs (memory) or on a cache disk.
//
// A piece lies in the file where it lies in the payload, and what is not held
// is a hole. The store neither fetches nor hashes what it is given; only what
// it finds in a file after a restart is hashed before it is trusted. The
// invariant: a piece that Has reports is complete and verified, never more
// bytes than the budget are used, space is reserved before it is written to,
// and a piece that somebody has acquired keeps its bytes until it is released,
// also when it is forgotten meanwhile.
package piecestore

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"viver.lan/internal/metainfo"
	"viver.lan/internal/placement"
)

// ErrFull says that the budget is used up by pieces that are pinned or in use.
var ErrFull = errors.New("no room for another piece within the budget")

// Config describes a store.
type Config struct {
	// Path of the file. It is created when missing; a file left by an earlier
	// run is taken over. Only one process can have it open.
	Path string
	// Info of the image.
	Info *metainfo.Info
	// Budget is how many bytes of pieces may be held; 0 means the whole image.
	Budget int64
}

// state of one piece in the file.
type state uint8

const (
	absent    state = iota
	candidate       // found in the file of an earlier run, not yet hashed
	dropped         // not held any more; its bytes stay as long as somebody reads them
	busy            // being written, hashed or punched out
	held
)

// Store holds pieces. It is safe for concurrent use.
type Store struct {
	info *metainfo.Info

	mu     sync.Mutex
	idle   sync.Cond // a piece left the state busy
	f      *os.File  // changes only while no piece is busy
	left   []*os.File
	budget int64
	pieces []piece
	others []uint8 // see SetOthers
	used   int64   // bytes of the pieces that are or are about to be in the file
	busy   int     // pieces in that state
	count  int     // pieces held
	tick   uint64
}

type piece struct {
	state  state
	pinned bool
	refs   int32
	used   uint64 // tick of the last use
}

// Open opens or creates the store. Pieces found in an existing file are
// Candidates until Recheck has hashed them.
func Open(cfg Config) (*Store, error) {
	f, err := openFile(cfg)
	if err != nil {
		return nil, fmt.Errorf("piece store %s: %w", cfg.Path, err)
	}
	s := &Store{info: cfg.Info, pieces: make([]piece, cfg.Info.NumPieces())}
	s.idle.L = &s.mu
	s.use(f)
	return s, nil
}

// file is what a store works with.
type file struct {
	*os.File
	info   *metainfo.Info
	budget int64
	used   int64
	found  []state
}

func openFile(cfg Config) (*file, error) {
	f := &file{info: cfg.Info, budget: cfg.Budget, found: make([]state, cfg.Info.NumPieces())}
	if f.budget <= 0 || f.budget > f.info.Size {
		f.budget = f.info.Size
	}
	if f.budget < f.info.PieceLength && f.budget < f.info.Size {
		return nil, fmt.Errorf("a budget of %d bytes holds no piece of %d", f.budget, f.info.PieceLength)
	}
	var err error
	if f.File, err = os.OpenFile(cfg.Path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600); err != nil {
		return nil, err
	}
	if err = claim(f.File, f.info.Size); err == nil {
		err = f.scan()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// use makes f the file to work with. It runs with s.mu held, but for a new store.
func (s *Store) use(f *file) {
	s.f, s.budget, s.used, s.count = f.File, f.budget, f.used, 0
	for i := range s.pieces {
		s.pieces[i].state = f.found[i]
	}
}

// claim makes sure that f is ours alone and has the given size.
func claim(f *os.File, size int64) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return errors.New("not a regular file")
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("another process uses it: %w", err)
	}
	if st.Size() != size {
		return f.Truncate(size)
	}
	return nil
}

// MoveTo goes on with another file and budget, because the one so far cannot
// be used any more. What it held is lost; who has acquired a piece reads it from
// the old file to the end. On an error nothing has changed.
func (s *Store) MoveTo(path string, budget int64) error {
	f, err := openFile(Config{Path: path, Info: s.info, Budget: budget})
	if err != nil {
		return fmt.Errorf("move the piece store to %s: %w", path, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.busy > 0 {
		s.idle.Wait()
	}
	s.left = append(s.left, s.f)
	s.use(f)
	return nil
}

// scan finds the pieces that an earlier run left in the file.
func (f *file) scan() error {
	pl, fd := f.info.PieceLength, int(f.Fd())
	for off := int64(0); off < f.info.Size; {
		data, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // only holes from here on
		}
		if err != nil {
			return fmt.Errorf("find data: %w", err)
		}
		hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil {
			return fmt.Errorf("find hole: %w", err)
		}
		off = hole
		for i := int(data / pl); i < len(f.found) && f.info.PieceOffset(i) < hole; i++ {
			size := f.info.PieceSize(i)
			whole := data <= f.info.PieceOffset(i) && f.info.PieceOffset(i)+size <= hole
			if whole && f.used+size <= f.budget {
				f.found[i] = candidate
				f.used += size
			} else if err := punch(f.File, f.info, i); err != nil {
				return err
			}
		}
	}
	return nil
}

// Close gives the file up. The pieces stay in it.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.left {
		_ = f.Close() // it failed before
	}
	return s.f.Close()
}

// Candidates returns the pieces that an earlier run left and nobody has
// hashed yet, those included that somebody is at.
func (s *Store) Candidates() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []int
	for i := range s.pieces {
		if s.pieces[i].unhashed() {
			out = append(out, i)
		}
	}
	return out
}

func (p *piece) unhashed() bool { return p.state == candidate || p.state == busy }

// Recheck hashes piece i if it is a candidate: a right one becomes held, a
// wrong one, which is an error, a hole. It reports whether the piece is held
// now.
func (s *Store) Recheck(i int) (bool, error) {
	s.mu.Lock()
	s.waitIdle(i)
	if p := &s.pieces[i]; p.state != candidate {
		defer s.mu.Unlock()
		return p.state == held, nil
	}
	s.begin(i)
	s.mu.Unlock()

	buf := make([]byte, s.info.PieceSize(i))
	_, err := s.f.ReadAt(buf, s.info.PieceOffset(i))
	if err == nil && !s.info.Verify(i, buf) {
		err = errors.New("wrong bytes")
	}
	if err != nil {
		_ = s.forget(i) // a hole or not, it is not held and gets overwritten whole
		return false, fmt.Errorf("piece %d in the store's file: %w", i, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finish(i, held)
	return true, nil
}

// Put keeps verified piece i, given as consecutive parts. It makes room by
// evicting unpinned pieces and returns them. A piece already held is left
// alone. When the file system is full although the budget is not used up, the
// budget shrinks to what is used.
func (s *Store) Put(i int, parts ...[]byte) (evicted []int, err error) {
	evicted, write, err := s.reserve(i)
	for _, e := range evicted {
		if perr := s.punch(e); perr != nil && err == nil {
			err = fmt.Errorf("evict piece %d: %w", e, perr)
		}
	}
	if write && err == nil {
		err = s.write(i, parts)
	}
	if write && err != nil {
		_ = s.forget(i) // free what a torn write left; the first error counts
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range evicted {
		s.finish(e, absent)
	}
	if write && err == nil {
		s.finish(i, held)
	}
	if write && errors.Is(err, unix.ENOSPC) {
		s.budget = min(s.budget, s.used)
	}
	if err != nil {
		return evicted, fmt.Errorf("keep piece %d: %w", i, err)
	}
	return evicted, nil
}

// reserve accounts for piece i and marks what has to go for it.
func (s *Store) reserve(i int) (evict []int, write bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waitIdle(i)
	size, was := s.info.PieceSize(i), s.pieces[i].state
	if was == held {
		return nil, false, nil
	}
	if was != absent { // overwriting a candidate is as good as hashing it
		s.used -= size
	}
	for s.budget-s.used < size {
		e := s.evictable(i)
		if e < 0 {
			if was != absent {
				s.used += size
			}
			// What is marked already has to be punched and finished all the same.
			return evict, false, ErrFull
		}
		if s.pieces[e].state == held {
			s.count--
		}
		s.begin(e)
		s.used -= s.info.PieceSize(e)
		evict = append(evict, e)
	}
	s.begin(i)
	s.used += size
	return evict, true, nil
}

// evictable returns the piece to evict for piece i, or -1.
func (s *Store) evictable(i int) int {
	best, score := -1, uint64(0)
	for e := range s.pieces {
		p := &s.pieces[e]
		if e == i || p.pinned || p.refs > 0 || p.state != held && p.state != candidate {
			continue
		}
		others := 0
		if s.others != nil {
			others = int(s.others[e])
		}
		if x := placement.EvictionScore(s.tick-p.used+1, others); x > score {
			best, score = e, x
		}
	}
	return best
}

// SetOthers tells how many other nodes have each piece: what others have is
// evicted sooner. The store keeps the slice; nil means that nothing is known.
func (s *Store) SetOthers(count []uint8) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.others = count
}

// begin makes piece i busy.
func (s *Store) begin(i int) {
	s.pieces[i].state = busy
	s.busy++
}

// finish ends the busy state of piece i.
func (s *Store) finish(i int, now state) {
	p := &s.pieces[i]
	s.busy--
	p.state = now
	if now == held {
		s.tick++
		p.used = s.tick
		s.count++
	}
	s.idle.Broadcast()
}

// waitIdle waits until piece i is not busy. Nothing is busy for longer than
// one file operation of the process itself takes.
func (s *Store) waitIdle(i int) {
	for s.pieces[i].state == busy {
		s.idle.Wait()
	}
}

func (s *Store) write(i int, parts [][]byte) error {
	off, end := s.info.PieceOffset(i), s.info.PieceOffset(i)+s.info.PieceSize(i)
	if err := fallocate(s.f, unix.FALLOC_FL_KEEP_SIZE, off, end-off); err != nil {
		if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
			err = fmt.Errorf("the file system of the piece store is full: %w", unix.ENOSPC)
		}
		return err
	}
	for _, p := range parts {
		if _, err := s.f.WriteAt(p, off); err != nil {
			return err
		}
		off += int64(len(p))
	}
	if off != end {
		return fmt.Errorf("got %d bytes too few", end-off)
	}
	return nil
}

// forget gives up piece i, which is busy. A reader whose bytes may be right must not
// get a hole instead: while there is one they stay, and the last Release is what frees
// them.
func (s *Store) forget(i int) error {
	s.mu.Lock()
	if s.pieces[i].refs > 0 { // nobody begins while it is busy
		defer s.mu.Unlock()
		s.finish(i, dropped)
		return nil
	}
	s.mu.Unlock()
	err := s.punch(i)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= s.info.PieceSize(i)
	s.finish(i, absent)
	return err
}

func (s *Store) punch(i int) error { return punch(s.f, s.info, i) }

// punch gives the memory or disk blocks of piece i back. What a socket still
// sends from them stays intact: the pages leave the file, they are not
// overwritten.
func punch(f *os.File, info *metainfo.Info, i int) error {
	return fallocate(f, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, info.PieceOffset(i), info.PieceSize(i))
}

// fallocate is fallocate(2), again for as long as a signal ends it. The Go runtime sends
// its threads signals to preempt them, and the tmpfs of Linux 6.1 then gives back what it
// has reserved; that of 6.18 goes on.
func fallocate(f *os.File, mode uint32, off, size int64) error {
	for {
		if err := unix.Fallocate(int(f.Fd()), mode, off, size); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
