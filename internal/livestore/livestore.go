// Package livestore brings the live layer that the owner signed (package livelayer) to
// this node, and keeps it; and, in another Store, the publication of an image (package
// publication), which comes the same way. A layer is either of them here.
//
// Which layer that is, an override says; where its bytes come from does not matter:
// from the operator's computer, this machine's saved-data disk, or any member that has
// them. It does not use the layer: whoever follows Store.State does, and reads the file.
// The invariant: a file in its directory has the digest that its name says, and nothing
// that a member sends costs more than time.
package livestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/durable"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/notify"
	"viver.lan/internal/operator"
	"viver.lan/internal/runes"
	"viver.lan/internal/sleep"
)

// SavedDir is the directory of a saved-data disk for live layers.
const SavedDir = "live"

// Source is a member that serves live layers by HTTP.
type Source struct {
	Addr netip.AddrPort
	Has  livelayer.Mark // the layer that it says it has
}

// Network is what the store needs of the membership.
type Network interface {
	Overrides() []operator.Override
	// Put takes an override if the owner signed it and it is newer, and tells it to all.
	Put(operator.Override) error
	// Sources are the other members that may have a layer.
	Sources() []Source
	// Announce tells the others which layer this node has.
	Announce(context.Context, livelayer.Mark) error
	// Watch tells of changes of overrides and sources.
	Watch() (changed <-chan struct{}, stop func())
}

// Kind is what a Store holds. All are files of up to livelayer.MaxSize, which an override
// points to.
type Kind struct {
	Key  string // of that override
	What string // for people
	// Check says what is wrong with one that nodes could not use.
	Check func(layer []byte) error
	// Former are those before it, newest first, that may be wanted again.
	Former func(layer []byte) []livelayer.Digest
}

// LiveLayers are what is added to running machines.
func LiveLayers() Kind {
	return Kind{Key: livelayer.Key, What: "live layer", Check: checkLayer, Former: formerLayers}
}

func checkLayer(layer []byte) error {
	l, err := livelayer.Decode(layer)
	if err != nil {
		return err
	}
	if _, errs := runes.ReadTar(bytes.NewReader(l.Runes)); len(errs) > 0 {
		return fmt.Errorf("a rune of the live layer is wrong: %w", errors.Join(errs...))
	}
	return nil
}

func formerLayers(layer []byte) (former []livelayer.Digest) {
	l, err := livelayer.Decode(layer)
	if err != nil {
		return nil
	}
	for _, c := range l.History {
		if c.Digest != (livelayer.Digest{}) {
			former = append(former, c.Digest)
		}
	}
	return former
}

// Config is what a Store needs.
type Config struct {
	Kind
	Dir string // for the layers
	// Saved is a directory of the saved-data disk, for when all machines are switched
	// off. Its parent may appear later or never.
	Saved   string
	Network Network
	Changed func() // is called when the State has changed
	Log     *slog.Logger

	hedge, pause time.Duration // see fetch; 0: hedgeAfter, firstPause
}

// State is what the store has to say.
type State struct {
	// Pointer is to the layer that the owner wants, zero for none; Version is its
	// number.
	Pointer livelayer.Pointer
	Version uint64
	// Here says that this node has it, as the file Path.
	Here bool
	// Reason is why it is not here, for people.
	Reason string
}

// Store is this node's live layers.
type Store struct {
	cfg      Config
	announce notify.Signal
	save     notify.Signal

	mu    sync.Mutex // guards what follows
	state State

	// files guards what Dir holds while old layers are removed from it: one that was
	// offered must not be taken for one before it is pointed to. It is taken before mu, and
	// before the lock of the network.
	files   sync.Mutex
	offered livelayer.Digest
}

// ErrNotHere means that nobody has a layer who was asked.
var ErrNotHere = fmt.Errorf("no node that answers has it: %w", fs.ErrNotExist)

// New returns a store. What a daemon before it left in the directory is used again. It
// touches no file: nothing else waits for a directory that cannot be made.
func New(cfg Config) *Store {
	if cfg.hedge == 0 {
		cfg.hedge = hedgeAfter
	}
	if cfg.pause == 0 {
		cfg.pause = firstPause
	}
	return &Store{cfg: cfg, announce: notify.NewSignal(), save: notify.NewSignal()}
}

// Current returns the pointer that the override with that key has, zero for none, and its
// version: the sequence of that override.
func Current(overrides []operator.Override, key string) (p livelayer.Pointer, version uint64, err error) {
	for _, o := range overrides {
		if o.Key == key {
			p, err = livelayer.ParsePointer(o.Value)
			return p, o.Sequence, err
		}
	}
	return livelayer.Pointer{}, 0, nil
}

// Path is the file of a layer in a store's directory.
func Path(dir string, d livelayer.Digest) string { return filepath.Join(dir, d.String()+".tar") }

// Open opens a layer of a store's directory for whoever asks for it by its digest.
func Open(dir, digest string) (*os.File, error) {
	d, err := livelayer.ParseDigest(digest)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return os.Open(Path(dir, d))
}

// Read reads a layer of a store's directory.
func Read(dir string, d livelayer.Digest) (livelayer.Layer, error) {
	data, err := readDigest(dir, d)
	if err != nil {
		return livelayer.Layer{}, fmt.Errorf("read the live layer: %w", err)
	}
	return livelayer.Decode(data)
}

// State returns how things are.
func (s *Store) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

func (s *Store) set(state State) {
	s.mu.Lock()
	same := s.state == state
	s.state = state
	s.mu.Unlock()
	if !same && s.cfg.Changed != nil {
		s.cfg.Changed()
	}
}

// Add takes a layer from its owner, who has not pointed to it yet. One that nodes could
// not use is refused.
func (s *Store) Add(layer []byte) error {
	if err := s.cfg.Check(layer); err != nil {
		return err
	}
	s.files.Lock()
	defer s.files.Unlock()
	s.offered = livelayer.PointTo(layer).Digest
	s.tidy()
	return s.lay(s.offered, layer)
}

// lay puts a layer into the directory.
func (s *Store) lay(d livelayer.Digest, layer []byte) error {
	if err := os.MkdirAll(s.cfg.Dir, 0o755); err != nil {
		return fmt.Errorf("make room for live layers: %w", err)
	}
	return durable.WriteFile(Path(s.cfg.Dir, d), layer, 0o644)
}

// Put takes the override that points to a layer. The layer has to be here: else nobody
// might have it.
func (s *Store) Put(o operator.Override) error {
	pointer, err := livelayer.ParsePointer(o.Value)
	if err != nil {
		return err
	}
	if pointer != (livelayer.Pointer{}) {
		if _, err := read(s.cfg.Dir, pointer); err != nil {
			return fmt.Errorf("override %s: its %s has to be sent first: %w", o.Key, s.cfg.What, err)
		}
	}
	return s.cfg.Network.Put(o)
}

// Run brings each layer that the owner wants here until ctx ends, and returns nil.
func (s *Store) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.follow(ctx) })
	g.Go(func() error { return s.announceAll(ctx) })
	g.Go(func() error { return s.saveAll(ctx) })
	return g.Wait()
}

// follow brings the layer here that the overrides name, and the next one.
func (s *Store) follow(ctx context.Context) error {
	changed, stop := s.cfg.Network.Watch()
	defer stop()
	for ctx.Err() == nil {
		pointer, version, err := Current(s.cfg.Network.Overrides(), s.cfg.Key)
		state := State{Pointer: pointer, Version: version}
		switch {
		case err != nil:
			state.Reason = err.Error()
		case pointer == (livelayer.Pointer{}):
			state.Here = true
		default:
			state.Here = s.local(pointer)
			if state.Here {
				break
			}
			if err := s.fetch(ctx, state, changed); err != nil {
				continue // another one is wanted, or it is the end
			}
			state.Here, state.Reason = true, ""
		}
		if state != s.State() {
			s.use(state)
		}
		select {
		case <-ctx.Done():
		case <-changed:
		}
	}
	return nil
}

// use makes a layer that is here, or none, the one in use.
func (s *Store) use(state State) {
	s.set(state)
	if state.Reason != "" {
		s.cfg.Log.Warn("the "+s.cfg.What+" is not used", "version", state.Version, "reason", state.Reason)
		return
	}
	s.cfg.Log.Info(s.cfg.What, "version", state.Version, "digest", state.Pointer.Digest, "bytes", state.Pointer.Size)
	s.files.Lock()
	s.tidy()
	s.files.Unlock()
	s.announce.Send()
	s.save.Send()
}

// local reports whether a layer is on this machine, and brings it to the directory.
func (s *Store) local(p livelayer.Pointer) bool {
	if _, err := read(s.cfg.Dir, p); err == nil {
		return true
	}
	layer, err := read(s.cfg.Saved, p)
	if err == nil {
		err = s.lay(p.Digest, layer)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.cfg.Log.Warn("a saved "+s.cfg.What+" is not used", "error", err)
	}
	return err == nil
}

// wanted are the layers to be kept: the one in use, then those before it that a rollback may
// want.
func (s *Store) wanted() []livelayer.Digest {
	pointer := s.State().Pointer
	layer, err := read(s.cfg.Dir, pointer)
	if err != nil {
		return nil
	}
	return append([]livelayer.Digest{pointer.Digest}, s.cfg.Former(layer)...)
}

// keepBytes is what layers may take in a directory, so that no more than the one in use
// and an offered one are there if they are large.
const keepBytes = 2 * livelayer.MaxSize

// tidy removes old layers from Dir, but not the one that was offered last, nor the one that
// the owner points to now. The caller holds files.
func (s *Store) tidy() {
	besides := []livelayer.Digest{s.offered}
	if p, _, err := Current(s.cfg.Network.Overrides(), s.cfg.Key); err == nil {
		besides = append(besides, p.Digest)
	}
	s.prune(s.cfg.Dir, s.wanted(), besides...)
}

// prune removes the layers of a directory that are not to be kept, and the last of those
// that are if there are too many bytes. Those named in besides are kept, too.
func (s *Store) prune(dir string, keep []livelayer.Digest, besides ...livelayer.Digest) {
	if len(keep) == 0 {
		return // none is in use yet: perhaps one that is here
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	room := int64(keepBytes)
	for _, d := range keep {
		if fi, err := os.Lstat(Path(dir, d)); err == nil && fi.Size() <= room {
			room -= fi.Size()
			besides = append(besides, d)
		}
	}
	for _, e := range entries {
		name, ours := strings.CutSuffix(e.Name(), ".tar")
		d, err := livelayer.ParseDigest(name)
		if !ours || err != nil || slices.Contains(besides, d) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			s.cfg.Log.Warn("an old "+s.cfg.What+" is still there", "error", err)
		}
	}
}

// announceAll tells the others what is here.
func (s *Store) announceAll(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.announce:
		}
		err := s.cfg.Network.Announce(ctx, s.State().Pointer.Digest.Mark())
		if err == nil || ctx.Err() != nil {
			continue
		}
		s.cfg.Log.Warn("the others are not told which "+s.cfg.What+" this node has", "error", err)
		if sleep.For(ctx, retryEvery) == nil {
			s.announce.Send()
		}
	}
}

// retryEvery is the time between two attempts to announce or save a layer, and to find
// the saved-data disk, which appears without notice.
const retryEvery = 2 * time.Second

// saveAll keeps the layer in use on the saved-data disk.
func (s *Store) saveAll(ctx context.Context) error {
	logged := ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.save:
		}
		for ctx.Err() == nil {
			done, err := s.saveLayer()
			if err != nil && err.Error() != logged {
				logged = err.Error()
				s.cfg.Log.Warn("the "+s.cfg.What+" is not on the saved-data disk", "error", err)
			}
			if done || sleep.For(ctx, retryEvery) != nil {
				break
			}
		}
	}
}

// saveLayer saves the layer in use, if there is a disk for it.
func (s *Store) saveLayer() (done bool, err error) {
	state := s.State()
	if s.cfg.Saved == "" || state.Pointer == (livelayer.Pointer{}) || !state.Here {
		return true, nil
	}
	if fi, err := os.Lstat(filepath.Dir(s.cfg.Saved)); err != nil || !fi.IsDir() {
		return false, nil // no such disk, or not yet
	}
	keep := s.wanted()
	for _, d := range keep { // those before it, too: the one in use is the first
		layer, err := readDigest(s.cfg.Dir, d)
		if err != nil {
			continue
		}
		if _, err := readDigest(s.cfg.Saved, d); err == nil {
			continue
		}
		if err := os.MkdirAll(s.cfg.Saved, 0o755); err != nil {
			return false, err
		}
		if err := durable.WriteFile(Path(s.cfg.Saved, d), layer, 0o644); err != nil {
			return false, err
		}
	}
	s.prune(s.cfg.Saved, keep)
	return true, nil
}

// read reads the layer with that pointer from a directory.
func read(dir string, p livelayer.Pointer) ([]byte, error) {
	layer, err := readDigest(dir, p.Digest)
	if err != nil {
		return nil, err
	}
	return layer, p.Check(layer)
}

// readDigest reads a layer, which has to be a regular file: a link on a disk would lead
// out of it.
func readDigest(dir string, d livelayer.Digest) ([]byte, error) {
	if dir == "" {
		return nil, fs.ErrNotExist
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	name := filepath.Base(Path(dir, d))
	fi, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > livelayer.MaxSize {
		return nil, fmt.Errorf("%s: %s of %d bytes, want a file of up to %d: %w", filepath.Join(dir, name), fi.Mode(), fi.Size(), livelayer.MaxSize, fs.ErrNotExist)
	}
	layer, err := root.ReadFile(name)
	if err == nil && livelayer.PointTo(layer).Digest != d {
		err = fmt.Errorf("%s: its digest is another one: %w", filepath.Join(dir, name), fs.ErrNotExist)
	}
	return layer, err
}
