package blockdaemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/cluster"
	"viver.lan/internal/identity"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/livestore"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/notify"
	"viver.lan/internal/piecestore"
	"viver.lan/internal/publication"
	"viver.lan/internal/sign"
	"viver.lan/internal/sleep"
	"viver.lan/internal/vfield"
)

// SecondConfig is what a Second needs.
type SecondConfig struct {
	Owner sign.PublicKey
	// Runs is the image that this node runs, Pieces what it holds of that.
	Runs   publication.Image
	Pieces *piecestore.Store
	// Dir is for publications, Saved one on the saved-data disk (livestore.Config).
	Dir, Saved string
	// Describe is a directory for the second image's description, for the agent.
	Describe string
	Cluster  *cluster.Cluster
	Key      identity.Key
	Listen   netip.AddrPort
	Network  netip.Prefix // see vfield.Config
	// Room makes room for pieces of an image, and for no other's.
	Room func(*metainfo.Info) (piecestore.Config, error)
	// Busy says that this machine has something better to do than to fetch pieces.
	Busy    func() bool
	Changed func() // is called when the Status has changed
	Log     *slog.Logger
}

// Second keeps on this node the image of its network that the node does not run: the one
// that the owner published, or the one before it, as long as the publication is in use.
// So machines of both have their root disks, and either can be booted. It is a volume as
// the first is, with a port and a store of its own, and it fetches when there is nothing
// better to do.
type Second struct {
	cfg   SecondConfig
	store *livestore.Store
	news  notify.Signal

	mu      sync.Mutex // guards what follows
	use     *published // nil for none
	kept    *kept      // nil while there is no volume
	reason  string     // for that, for people
	offered manifest.Infohash
}

// published is a publication that is here.
type published struct {
	pointer       livelayer.Pointer
	image, former publication.Image
}

// kept is the second image on this node.
type kept struct {
	image  publication.Image
	volume *vfield.Volume
	reused int
}

// NewSecond returns one that does nothing before Run.
func NewSecond(cfg SecondConfig) *Second {
	s := &Second{cfg: cfg, news: notify.NewSignal(), offered: cfg.Runs.Info.Infohash}
	kind := livestore.Kind{Key: publication.Key, What: "published image", Check: s.check, Former: func([]byte) []livelayer.Digest { return nil }}
	s.store = livestore.New(livestore.Config{Kind: kind, Dir: cfg.Dir, Saved: cfg.Saved, Network: livestore.Publications(cfg.Cluster),
		Changed: func() { s.news.Send(); cfg.Changed() }, Log: cfg.Log})
	return s
}

// Store has the publications.
func (s *Second) Store() *livestore.Store { return s.store }

func (s *Second) check(data []byte) error {
	image, former, err := s.decode(data)
	if err == nil && image.Info.Infohash == former.Info.Infohash {
		err = fmt.Errorf("the published image, %s, is the one before it", image.Info.Infohash)
	}
	return err
}

func (s *Second) decode(data []byte) (image, former publication.Image, err error) {
	p, err := publication.Decode(data)
	if err != nil {
		return image, former, err
	}
	return p.Check(s.cfg.Owner)
}

// Publication implements control.Publications.
func (s *Second) Publication() ([]byte, error) {
	if state := s.store.State(); state.Here && state.Pointer != (livelayer.Pointer{}) {
		return os.ReadFile(livestore.Path(s.cfg.Dir, state.Pointer.Digest))
	}
	return publication.Publication{Image: s.cfg.Runs.Files, Former: s.cfg.Runs.Files}.Encode()
}

// Volume returns the second image's volume and manifest, nil while it is not kept.
func (s *Second) Volume(image manifest.Infohash) (*vfield.Volume, *manifest.Manifest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kept == nil || s.kept.image.Info.Infohash != image {
		return nil, nil
	}
	return s.kept.volume, s.kept.image.Manifest
}

// Run keeps the second image of each publication until ctx ends, and returns nil.
func (s *Second) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.store.Run(ctx) })
	g.Go(func() error { return s.follow(ctx) })
	return g.Wait()
}

// follow keeps the second image of the publication in use, and of the next one.
func (s *Second) follow(ctx context.Context) error {
	for ctx.Err() == nil {
		use := s.take()
		keeping, end := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if use != nil {
				s.maintain(keeping, use)
			}
		}()
		s.await(ctx, use)
		end()
		<-ended
	}
	return nil
}

// await waits until another publication than use is here.
func (s *Second) await(ctx context.Context, use *published) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.news:
		}
		state := s.store.State()
		if state.Here && (use == nil || state.Pointer != use.pointer) {
			return
		}
	}
}

// take makes the publication that is here the one in use, if there is one.
func (s *Second) take() *published {
	state := s.store.State()
	if !state.Here || state.Pointer == (livelayer.Pointer{}) {
		return nil
	}
	data, err := os.ReadFile(livestore.Path(s.cfg.Dir, state.Pointer.Digest))
	use := &published{pointer: state.Pointer}
	if err == nil {
		use.image, use.former, err = s.decode(data)
	}
	if err != nil { // the owner's own program checks it before
		s.cfg.Log.Warn("the published image is not used", "version", state.Version, "error", err)
		s.set(func() { s.use, s.reason = nil, err.Error() })
		return nil
	}
	s.set(func() { s.use, s.reason = use, "" })
	s.cfg.Cluster.SetImages(use.image.Info.Infohash, use.former.Info.Infohash)
	return use
}

func (s *Second) set(change func()) {
	s.mu.Lock()
	change()
	s.mu.Unlock()
	s.cfg.Changed()
}

// other is the image of the publication that a node does not run.
func (p *published) other(runs manifest.Infohash) publication.Image {
	if p.image.Info.Infohash == runs {
		return p.former
	}
	return p.image
}

// keepAgainAfter is the time between two attempts to keep the second image.
const keepAgainAfter = 30 * time.Second

// maintain keeps a publication's second image until ctx ends.
func (s *Second) maintain(ctx context.Context, use *published) {
	image := use.other(s.cfg.Runs.Info.Infohash)
	for {
		err := s.serve(ctx, image)
		if ctx.Err() != nil {
			return
		}
		s.cfg.Log.Warn("the second image is not kept here", "image", image.Info.Infohash, "error", err, "again_after", keepAgainAfter)
		s.set(func() { s.reason = err.Error() })
		if sleep.For(ctx, keepAgainAfter) != nil {
			return
		}
	}
}

// serve is this node's part in the swarm of an image until ctx ends, or something fails.
// It begins when the machine is up: only then it is known how much memory is available.
func (s *Second) serve(ctx context.Context, image publication.Image) error {
	if err := s.awaitIdle(ctx); err != nil {
		return err
	}
	cfg, err := s.cfg.Room(image.Info)
	if err != nil {
		return err
	}
	store, err := piecestore.Open(cfg)
	if err != nil {
		return err
	}
	defer store.Close()
	k := &kept{image: image, reused: s.reuse(ctx, store, image.Info)}
	if err := os.MkdirAll(s.cfg.Describe, 0o755); err != nil {
		return fmt.Errorf("describe the second image: %w", err)
	}
	if err := image.Write(s.cfg.Describe); err != nil {
		return fmt.Errorf("describe the second image: %w", err)
	}
	k.volume, err = vfield.New(vfield.Config{Info: image.Info, Store: store, Key: s.cfg.Key, Listen: s.cfg.Listen, Network: s.cfg.Network,
		Machine: bootnet.MachineAt, Changed: s.cfg.Changed, Log: s.cfg.Log.With("image", image.Info.Infohash)})
	if err != nil {
		return err
	}
	s.cfg.Log.Info("keeping a second image", "image", image.Info.Infohash, "name", image.Manifest.Name,
		"room", store.Budget(), "bytes", image.Info.Size, "reused_pieces", k.reused, "of", image.Info.NumPieces())
	s.set(func() { s.kept, s.reason = k, "" })
	g, running := errgroup.WithContext(ctx)
	g.Go(func() error { return k.volume.Run(running) })
	g.Go(func() error {
		return FollowMembers(running, s.cfg.Cluster, k.volume, image.Info.Infohash, netip.Addr{})
	})
	g.Go(func() error { return s.announce(running, cluster.MarkOf(image.Info.Infohash)) })
	g.Go(func() error { return s.judge(running, k) })
	err = g.Wait()
	s.set(func() { s.kept, s.offered = nil, s.cfg.Runs.Info.Infohash })
	leaving, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbyeTime)
	defer cancel()
	_ = s.setKeeps(leaving, cluster.ImageMark{}) // the next attempt tells again; at the end of the process nobody need know
	return errors.Join(err, ctx.Err())
}

// reuse copies the pieces of the second image that the node's own has, too, as far as
// there is room, and returns how many there are now.
func (s *Second) reuse(ctx context.Context, store *piecestore.Store, info *metainfo.Info) (reused int) {
	for i, at := range info.Shared(s.cfg.Runs.Info) {
		if at < 0 || store.Candidate(i) || store.Used()+info.PieceSize(i) > store.Budget() {
			continue
		}
		if s.awaitIdle(ctx) != nil {
			return reused
		}
		ref, ok := s.cfg.Pieces.Acquire(at)
		if !ok {
			continue
		}
		data := make([]byte, info.PieceSize(i))
		err := ref.ReadAt(data, 0)
		ref.Release()
		if err != nil || !info.Verify(i, data) {
			continue // it comes from the swarm
		}
		if _, err := store.Put(i, data); err != nil {
			s.cfg.Log.Warn("pieces of this node's own image are not reused", "error", err)
			return reused
		}
		reused++
	}
	return reused
}

// awaitIdle waits until this machine has nothing better to do.
func (s *Second) awaitIdle(ctx context.Context) error {
	for s.cfg.Busy() {
		if err := sleep.For(ctx, judgeEvery); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// setKeeps tells the members which image is kept here.
func (s *Second) setKeeps(ctx context.Context, mark cluster.ImageMark) error {
	return s.cfg.Cluster.UpdateMeta(ctx, func(m *cluster.Meta) { m.Keeps = mark })
}

// announce tells them until they know.
func (s *Second) announce(ctx context.Context, mark cluster.ImageMark) error {
	for {
		err := s.setKeeps(ctx, mark)
		if err == nil || sleep.For(ctx, judgeEvery) != nil {
			return nil
		}
		s.cfg.Log.Debug("the others are not told which image this node keeps", "error", err)
	}
}

// judgeEvery is the time between two looks at how the second image is.
const judgeEvery = time.Second

// leaveAfter is how long the second image may be incomplete before machines that boot are
// offered the other one again: each change ends what is being sent to them.
const leaveAfter = 30 * time.Second

// offersSecond reports whether machines that boot are offered the second image: if the owner
// wants that, and it was complete so long ago or still is. What members only say makes it
// not complete, not even that they run it.
func offersSecond(wants bool, complete time.Duration) bool {
	return wants && complete < leaveAfter
}

// judge decides, again and again, whether this machine has time to fetch, and which image
// is offered to machines that boot: the published one, once a machine without it could
// have it whole though the publisher leaves; the other one else.
func (s *Second) judge(ctx context.Context, k *kept) error {
	complete := time.Now().Add(-leaveAfter) // never yet
	for {
		k.volume.DemandOnly(s.cfg.Busy())
		if status := k.volume.Status(); status.OutOfReach == 0 && status.Independence.Independent {
			complete = time.Now()
		}
		offered := s.cfg.Runs.Info.Infohash
		if offersSecond(s.wants(k), time.Since(complete)) {
			offered = k.image.Info.Infohash
		}
		s.mu.Lock()
		was := s.offered
		s.offered = offered
		s.mu.Unlock()
		if was != offered {
			s.cfg.Log.Info("the image for machines that boot", "image", offered, "was", was)
			s.cfg.Changed()
		}
		if sleep.For(ctx, judgeEvery) != nil {
			return nil
		}
	}
}

// wants reports whether the owner wants the image that is kept to be booted.
func (s *Second) wants(k *kept) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.use != nil && s.use.image.Info.Infohash == k.image.Info.Infohash
}
