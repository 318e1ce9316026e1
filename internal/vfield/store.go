package vfield

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"viver.lan/internal/bytesize"
	"viver.lan/internal/exchange"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/piecestore"
	"viver.lan/internal/swarm"
)

const (
	// unreadableLimit is how many pieces the store may fail to give before
	// another place is used instead.
	unreadableLimit = 3
	// distrustEvery is how often a store that fails now and then has to prove
	// all it holds.
	distrustEvery = time.Minute
	// minStore is how many pieces a store must have room for to be of use.
	minStore = 8
)

var errNotHere = errors.New("the piece is not here")

// store is the piece store and its health: what it cannot read is forgotten, all
// else is hashed again, and a file that fails again and again is given up for
// another one in memory. The swarm is told of all that comes and goes by that.
type store struct {
	*piecestore.Store
	info       *metainfo.Info
	fallback   piecestore.Config
	swarm      *swarm.Swarm
	log        *slog.Logger
	budget     int64                     // as check saw it last; only check uses it
	distrusted atomic.Pointer[time.Time] // when all pieces last had to be hashed again
	rehashDue  atomic.Bool               // that is still to be done
	unreadable atomic.Int32              // pieces
	moved      atomic.Bool               // the file failed and is not used any more
	notice     atomic.Pointer[string]    // a sentence about the store, for people
}

// Read implements source.
func (s *store) Read(_ context.Context, i int, p []byte, off int) error {
	ref, err := s.open(i)
	if err != nil {
		return err
	}
	err = ref.ReadAt(p, int64(off))
	ref.Release()
	if err != nil {
		s.onUnreadable(i, err)
	}
	return err
}

// open gives access to piece i, which is hashed before if it was only found in the
// store's file.
func (s *store) open(i int) (storedPiece, error) {
	ref, ok := s.Acquire(i)
	if !ok && s.rehash(i) {
		ref, ok = s.Acquire(i)
	}
	if !ok {
		return storedPiece{}, errNotHere
	}
	return storedPiece{ref}, nil
}

type storedPiece struct{ piecestore.Ref }

func (storedPiece) Bytes() []byte { return nil }

// put keeps a verified piece. What had to go for it is no longer announced.
func (s *store) put(i int, parts ...[]byte) error {
	evicted, err := s.Put(i, parts...)
	for _, e := range evicted {
		s.swarm.Changed(e)
		s.swarm.Post(func(x *exchange.Exchange) { x.Want(e, e+1, func(int) bool { return false }) }) // or it would come and go for ever
	}
	s.onPutError(err)
	return err
}

// hasRoom reports whether piece i is not held and could be without an eviction.
func (s *store) hasRoom(i int) bool {
	return !s.Has(i) && s.Used()+s.info.PieceSize(i) <= s.Budget()
}

// fitsAll reports whether the store has room for the whole image.
func (s *store) fitsAll() bool { return s.Budget() >= s.info.Size }

// rehash hashes piece i if nobody has since it was found in the file, and tells
// peers what came out. It reports whether the piece is held.
func (s *store) rehash(i int) bool {
	ok, err := s.Recheck(i)
	if ok || err != nil {
		s.swarm.Changed(i)
	}
	if err != nil && s.distrusted.Load() != nil { // else a daemon that was killed left it half written
		s.countFailure(err)
	}
	return ok
}

// rehashAll hashes what was found in the file, or is not trusted any more.
func (s *store) rehashAll(ctx context.Context) error {
	found := s.Candidates()
	if len(found) == 0 {
		return nil
	}
	begin := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(min(runtime.GOMAXPROCS(0), 4))
	for _, i := range found {
		g.Go(func() error {
			if ctx.Err() == nil {
				s.rehash(i)
			}
			return ctx.Err()
		})
	}
	err := g.Wait()
	s.log.Info("pieces found in the store hashed", "found", len(found), "right", s.Count(), "seconds", time.Since(begin).Seconds())
	return err
}

// check looks how the store is: once a second, from one goroutine.
func (s *store) check(ctx context.Context) error {
	if s.rehashDue.Swap(false) {
		if err := s.rehashAll(ctx); err != nil {
			return err
		}
	}
	was, before := s.budget, s.notice.Load()
	if b := s.Budget(); b < was && b < min(minStore*s.info.PieceLength, s.info.Size) {
		s.failOver(errors.New("its file system is full"))
	}
	s.budget = s.Budget()
	if s.budget < was && !s.moved.Load() {
		note := fmt.Sprintf("the file system of the piece store is full: pieces take %s from now on, not %s", bytesize.MiB(s.budget), bytesize.MiB(was))
		s.notice.CompareAndSwap(before, &note)
		s.log.Warn(note)
	}
	s.swarm.Do(func(x *exchange.Exchange) { x.SetBudget(s.budget) })
	return nil
}

// onUnreadable forgets piece i, which cannot be read any more: it is fetched again
// when somebody needs it. A disk that fails once may have lost more, and may not
// even say so: all else is hashed again.
func (s *store) onUnreadable(i int, err error) {
	s.log.Error("the piece store cannot read what it holds, forgetting the piece", "piece", i, "error", err)
	s.discard(i)
	if was, now := s.distrusted.Load(), time.Now(); was == nil || now.Sub(*was) >= distrustEvery {
		s.distrusted.Store(&now)
		s.Distrust()
		s.rehashDue.Store(true)
	}
	s.countFailure(err)
}

// discard forgets piece i and tells peers.
func (s *store) discard(i int) {
	if err := s.Drop(i); err != nil {
		s.log.Error("piece store", "error", err)
	}
	s.swarm.Changed(i)
}

// countFailure counts a piece that the file should have given and could not. After
// a few of them the file is given up.
func (s *store) countFailure(err error) {
	if s.unreadable.Add(1) >= unreadableLimit {
		s.failOver(err)
	}
}

// onPutError gives up a file that cannot be written; one that is full is not broken.
func (s *store) onPutError(err error) {
	if err != nil && !errors.Is(err, piecestore.ErrFull) && !errors.Is(err, unix.ENOSPC) {
		s.failOver(err)
	}
}

// failOver goes on in memory, if there is any for it, without what the file held.
func (s *store) failOver(why error) {
	if s.fallback.Path == "" || s.moved.Swap(true) {
		return
	}
	held := s.Count()
	if err := s.MoveTo(s.fallback.Path, s.fallback.Budget); err != nil {
		s.log.Error("the cache disk fails, and so does memory instead", "error", errors.Join(why, err))
		return
	}
	for i := range s.info.NumPieces() {
		s.swarm.Changed(i)
	}
	note := fmt.Sprintf("the cache disk is not used any more (%v): pieces are kept in memory, %s at most", why, bytesize.MiB(s.Budget()))
	s.notice.Store(&note)
	s.log.Error(note, "pieces lost", held)
}

// note is what is to be said about the store, "" when all is well.
func (s *store) note() string {
	if note := s.notice.Load(); note != nil {
		return *note
	}
	return ""
}
