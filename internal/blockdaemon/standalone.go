package blockdaemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/cluster"
	"viver.lan/internal/contain"
	"viver.lan/internal/control"
	"viver.lan/internal/identity"
	"viver.lan/internal/identity/keyfile"
	"viver.lan/internal/klog"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/nbd"
	"viver.lan/internal/notify"
	"viver.lan/internal/operator"
	"viver.lan/internal/piecestore"
	"viver.lan/internal/vfield"
)

// standalone is a volume without a machine that hangs on it.
type standalone struct {
	options Options
	screen  *screen
	log     *slog.Logger
	info    *metainfo.Info
	store   *piecestore.Store
	dir     *vfield.Dir // nil unless the first node
	key     identity.Key
	start   uint64 // number of this start, see keyfile.NextStart
	volume  *vfield.Volume
	nbd     net.Listener
	cluster *cluster.Cluster // nil without membership
	changes notify.Notifier  // of the status
	panics  contain.Counter
}

// RunStandalone serves a volume over TCP until ctx ends; it says goodbye to the other members
// then.
func RunStandalone(ctx context.Context, o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	level := slog.LevelInfo
	if o.Verbose {
		level = slog.LevelDebug
	}
	screen := newScreen(os.Stderr)
	defer screen.show("")
	s := &standalone{options: o, screen: screen}
	s.log = s.panics.Watch(slog.New(klog.Limit(slog.NewTextHandler(screen, &slog.HandlerOptions{Level: level}))))
	defer s.close()
	if err := s.open(); err != nil {
		return err
	}
	err := s.serve(ctx)
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		s.log.Info("told to end")
		return nil
	}
	return err
}

// open readies the parts; nothing runs yet.
func (s *standalone) open() (err error) {
	if err := s.openVolume(netip.Prefix{}); err != nil {
		return err
	}
	o := s.options
	for _, a := range o.Peers {
		s.volume.AddPeer(a, false)
	}
	for _, a := range o.Origins {
		s.volume.AddPeer(a, true)
	}
	if s.nbd, err = net.Listen("tcp", o.Listen.String()); err != nil {
		return inUse(fmt.Errorf("serve NBD: %w", err), "--listen")
	}
	if o.Gossip.IsValid() {
		return s.openCluster()
	}
	return nil
}

// openVolume readies the image, its pieces and this node's key. Peers are those of the
// network, if that is valid.
func (s *standalone) openVolume(network netip.Prefix) (err error) {
	o := s.options
	if s.info, err = readMetainfo(o.Metainfo, o.Public); err != nil {
		return err
	}
	if err := s.openStore(); err != nil {
		return err
	}
	if err := s.openIdentity(); err != nil {
		return err
	}
	cfg := vfield.Config{Info: s.info, Store: s.store, Key: s.key, Listen: o.Swarm, Network: network, Machine: bootnet.MachineAt, Changed: s.changes.Notify, Log: s.log}
	if o.Data != "" {
		if s.dir, err = vfield.OpenDir(o.Data, s.info); err != nil {
			return err
		}
		cfg.Medium = s.dir
	}
	s.volume, err = vfield.New(cfg)
	return inUse(err, "--swarm")
}

// openIdentity finds this node's key: in the file that --key names, else beside
// the pieces, so that whoever keeps those stays the same node; else a new one.
func (s *standalone) openIdentity() (err error) {
	file := s.options.Key
	if file == "" && s.options.Store != "" {
		file = s.options.Store + ".key"
	}
	if file == "" {
		s.start = 1
		s.key, err = identity.Generate()
		return err
	}
	s.key, s.start, err = openIdentity(file, keyfile.SequenceFor(file), s.log)
	return err
}

// openCluster joins the members.
func (s *standalone) openCluster() error {
	cfg, err := s.membership()
	if err != nil {
		return err
	}
	s.cluster, err = cluster.New(cfg)
	return inUse(err, "--gossip")
}

// membership is how this node takes part.
func (s *standalone) membership() (_ cluster.Config, err error) {
	o := s.options
	var verify func(message, signature []byte) error
	if o.Public != "" {
		if verify, err = verifyOverrides(o.Public); err != nil {
			return cluster.Config{}, err
		}
	}
	return cluster.Config{Key: s.key, Start: s.start, Bind: o.Gossip.Addr(), Port: o.Gossip.Port(), Seeds: o.Seeds,
		Meta:   cluster.Meta{Hostname: o.Name, SwarmPort: o.Swarm.Port(), First: o.Data != "", Budget: sharedBudget(s.store, o.Data != ""), Infohash: s.info.Infohash},
		Verify: verify, Log: s.log}, nil
}

// origin is the address of the first node, if --origin names one.
func (s *standalone) origin() netip.Addr {
	if len(s.options.Origins) != 1 {
		return netip.Addr{}
	}
	return s.options.Origins[0].Addr()
}

// serve lets the parts work until ctx ends or one of them fails.
func (s *standalone) serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.volume.Run(ctx) })
	g.Go(func() error { return nbd.Listen(ctx, s.nbd, s.exports(), nbd.Options{Log: s.log}) })
	if s.cluster != nil {
		g.Go(func() error { return takePart(ctx, s.cluster, s.log) })
		g.Go(func() error { return FollowMembers(ctx, s.cluster, s.volume, s.info.Infohash, s.origin()) })
		g.Go(func() error { return follow(ctx, s.cluster, func() bool { s.changes.Notify(); return false }) })
	}
	if s.options.Status != "" {
		g.Go(func() error { return control.Serve(ctx, s.options.Status, -1, s, s.log) })
	}
	g.Go(func() error { return s.report(ctx) })
	s.log.Info("serving", "nbd", s.nbd.Addr(), "peers", s.volume.Addr(), "image", s.info.Infohash, "bytes", s.info.Size)
	return g.Wait()
}

// close gives up what open opened; nothing runs any more.
func (s *standalone) close() {
	if s.dir != nil {
		s.dir.Close()
	}
	if s.store != nil {
		s.store.Close()
	}
}

// inUse adds to the error of a taken port what to do about it.
func inUse(err error, flag string) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	return fmt.Errorf("%w: another program has this port, perhaps another vfield; give a free one with %s", err, flag)
}

// openStore opens the file that pieces are kept in. One in memory has no name
// any more: it goes with this process, however that ends.
func (s *standalone) openStore() (err error) {
	o := s.options
	if one := min(s.info.PieceLength, s.info.Size); o.Cache > 0 && int64(o.Cache) < one {
		return UsageError(fmt.Sprintf("--cache is %d bytes, and one piece of this image %d: give room for some pieces", o.Cache, one))
	}
	cfg := piecestore.Config{Path: o.Store, Info: s.info, Budget: int64(o.Cache)}
	if cfg.Path == "" {
		dir, err := os.MkdirTemp("/dev/shm", "viver-pieces-")
		if err != nil {
			return fmt.Errorf("make room for pieces in memory: %w", err)
		}
		defer os.RemoveAll(dir)
		cfg.Path = filepath.Join(dir, "store")
	}
	if s.store, err = piecestore.Open(cfg); err == nil && o.Data == "" {
		s.checkRoom(filepath.Dir(cfg.Path))
	}
	return err
}

// checkRoom warns when the store cannot become as large as its budget.
func (s *standalone) checkRoom(dir string) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return // we shall see
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < s.store.Budget()-s.store.Used() {
		s.log.Warn("less room than pieces may take: give a smaller --cache, or a --store where there is more",
			"where", dir, "free", free, "needed", s.store.Budget())
	}
}

// exports are the files of the image, the root disk first.
func (s *standalone) exports() []nbd.Export {
	var out []nbd.Export
	for _, f := range s.info.Files {
		out = append(out, nbd.Export{Name: f.Name, Description: s.info.Name + ", " + f.Name,
			Backend: section{volume: s.volume, offset: f.Offset, size: f.Size}})
	}
	return out
}

// Status implements control.Daemon.
func (s *standalone) Status() control.Status {
	st := s.MemberStatus()
	addVolume(&st, s.volume)
	st.Panics = s.panics.Total()
	return st
}

// MemberStatus implements control.Daemon.
func (s *standalone) MemberStatus() control.Status {
	st := control.Status{ID: s.key.ID(), Hostname: s.options.Name, First: s.options.Data != "", Image: s.info.Name, Infohash: s.info.Infohash}
	addMembers(&st, s.cluster)
	return st
}

// Watch implements control.Daemon.
func (s *standalone) Watch() (changed <-chan struct{}, stop func()) { return s.changes.Watch() }

// PutOverride implements control.Daemon.
func (s *standalone) PutOverride(o operator.Override) error {
	if s.cluster == nil {
		return errNoMember
	}
	return s.cluster.Put(o)
}

// BeginNetwork implements control.Beginner.
func (s *standalone) BeginNetwork() error {
	if s.cluster == nil {
		return errNoMember
	}
	s.cluster.BeginNetwork()
	return nil
}

var errNoMember = errors.New("this node takes no part in membership: start it with --gossip")

// Open implements control.Daemon.
func (s *standalone) Open(ctx context.Context, name string) (io.ReadSeeker, error) {
	for _, f := range s.info.Files {
		if f.Name == name {
			return io.NewSectionReader(readerAt{ctx, s.volume}, f.Offset, f.Size), nil
		}
	}
	return nil, fmt.Errorf("open %s: %w", name, os.ErrNotExist)
}
