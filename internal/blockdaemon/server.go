package blockdaemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/bytesize"
	"viver.lan/internal/cluster"
	"viver.lan/internal/control"
	"viver.lan/internal/disks"
	"viver.lan/internal/identity/keyfile"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/livestore"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/operator"
	"viver.lan/internal/piecestore"
	"viver.lan/internal/publication"
	"viver.lan/internal/segment"
	"viver.lan/internal/sign"
)

// server is the volume of an installed machine that is the first node of a network: it
// has the image in a directory, and no root disk hangs on it. Its files are those that a
// node has, because the agent reads them, too.
type server struct {
	standalone
	boot    *control.Boot
	image   publication.Image // in the directory
	network bootnet.Network
	live    *livestore.Store
	second  *Second
}

// RunServer is the first node's volume until ctx ends, as control.BootFile and the other
// files there say; it says goodbye to the members then. Nothing of this machine's own
// network is changed.
func RunServer(ctx context.Context, log *slog.Logger) error {
	s := &server{}
	s.log = s.panics.Watch(log)
	defer s.close()
	if err := s.open(); err != nil {
		return err
	}
	err := s.serve(ctx)
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

// open readies the parts; nothing runs yet.
func (s *server) open() (err error) {
	if s.boot, err = control.ReadBoot(control.BootFile); err != nil {
		return err
	}
	if s.image, err = publication.ReadImage(control.RunDir); err != nil {
		return fmt.Errorf("open the image's description: %w", err)
	}
	if s.network, err = bootnet.ReadNetwork(control.BootNetworkFile); err != nil {
		return err
	}
	address := s.network.Lease.Address
	s.options = Options{
		Metainfo: filepath.Join(control.RunDir, manifest.Metainfo), Public: control.OwnerFile, Data: s.boot.Medium, Cache: bytesize.Size(s.boot.Memory),
		Swarm: netip.AddrPortFrom(address.Addr(), control.SwarmPort), Gossip: netip.AddrPortFrom(address.Addr(), cluster.DefaultPort),
		Key: filepath.Join(s.boot.StateDir, keyfile.NameFor(s.boot.MAC)), Name: s.boot.Hostname,
	}
	if err := s.openVolume(address.Masked()); err != nil {
		return err
	}
	cfg, err := s.membership()
	if err != nil {
		return err
	}
	cfg.Network, cfg.SavedNetwork = address.Masked(), readNetworkName(filepath.Join(s.boot.StateDir, disks.NetworkNameFile))
	cfg.Meta.MAC, cfg.Meta.HTTPPort, cfg.Meta.Network = s.boot.MAC, s.boot.ServePort(), readNetworkName(control.NetworkNameFile)
	if s.cluster, err = cluster.New(cfg); err != nil {
		return err
	}
	s.live = livestore.New(livestore.Config{Kind: livestore.LiveLayers(), Dir: control.LiveDir, Saved: filepath.Join(s.boot.StateDir, livestore.SavedDir),
		Network: livestore.On(s.cluster), Changed: s.changes.Notify, Log: s.log})
	return s.openSecond()
}

// openSecond readies what the server needs for another image than its own: it keeps that in
// its state directory.
func (s *server) openSecond() error {
	owner, err := sign.ReadPublicKey(control.OwnerFile)
	if err != nil {
		return err
	}
	address := s.network.Lease.Address
	s.second = NewSecond(SecondConfig{
		Owner: owner, Runs: s.image, Pieces: s.store, Cluster: s.cluster, Key: s.key,
		Dir: control.PublicationDir, Saved: filepath.Join(s.boot.StateDir, publicationsDir), Describe: control.SecondDir,
		Listen: netip.AddrPortFrom(address.Addr(), control.SecondSwarmPort), Network: address.Masked(),
		Room: func(info *metainfo.Info) (piecestore.Config, error) {
			return secondDisk(filepath.Join(s.boot.StateDir, "second"), info)
		},
		Busy: s.volume.Waits, Changed: s.changes.Notify, Log: s.log,
	})
	return nil
}

// serve lets the parts work until ctx ends or one of them fails.
func (s *server) serve(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.volume.Run(ctx) })
	g.Go(func() error { return takePart(ctx, s.cluster, s.log) })
	g.Go(func() error { return FollowMembers(ctx, s.cluster, s.volume, s.info.Infohash, netip.Addr{}) })
	g.Go(func() error { return follow(ctx, s.cluster, func() bool { s.changes.Notify(); return false }) })
	g.Go(func() error { return s.live.Run(ctx) })
	g.Go(func() error { return s.second.Run(ctx) })
	g.Go(func() error { return saveNetworkName(ctx, s.cluster, control.NetworkNameFile, s.log) })
	g.Go(func() error { return writeKnownHosts(ctx, s.cluster, control.KnownHosts, s.log) })
	g.Go(func() error {
		return (&savedData{dir: s.boot.StateDir, overrides: s.cluster, mac: s.boot.MAC, log: s.log}).run(ctx)
	})
	group := -1
	if control.AgentExists() {
		group = control.AgentID
	}
	g.Go(func() error { return control.Serve(ctx, control.Socket, group, s, s.log) })
	g.Go(func() error {
		if err := segment.Serve(ctx, control.SegmentSocket, control.AgentID, s.log); err != nil {
			s.log.Warn("GRUB of other machines gets small segments from this one", "error", err)
		}
		return nil
	})
	return g.Wait()
}

// Status implements control.Daemon.
func (s *server) Status() control.Status {
	st := s.MemberStatus()
	addVolume(&st, s.volume)
	st.Panics, st.Published = s.panics.Total(), s.second.Status(true)
	return st
}

// MemberStatus implements control.Daemon.
func (s *server) MemberStatus() control.Status {
	st := s.standalone.MemberStatus()
	link, err := netlink.LinkByIndex(s.network.Card.Index)
	st.MAC, st.Address = s.boot.MAC, s.network.Lease.Address.Addr()
	st.BootNetwork, st.Live = bootNetwork(s.network, err == nil && bootnet.HasCarrier(link)), liveStatus(s.live.State())
	st.Published = s.second.Status(false)
	return st
}

// AddLayer implements control.Layers.
func (s *server) AddLayer(layer []byte) error { return s.live.Add(layer) }

// Layer implements control.Layers.
func (s *server) Layer(ctx context.Context, d livelayer.Digest) ([]byte, error) {
	return s.live.Get(ctx, d)
}

// PutOverride implements control.Daemon.
func (s *server) PutOverride(o operator.Override) error {
	switch o.Key {
	case livelayer.Key:
		return s.live.Put(o)
	case publication.Key:
		return s.second.Store().Put(o)
	}
	return s.standalone.PutOverride(o)
}

// AddPublication implements control.Publications.
func (s *server) AddPublication(data []byte) error { return s.second.Store().Add(data) }

// Publication implements control.Publications.
func (s *server) Publication() ([]byte, error) { return s.second.Publication() }

// Open implements control.Daemon.
func (s *server) Open(ctx context.Context, name string) (io.ReadSeeker, error) {
	return openFile(ctx, name, s.volume, s.image.Manifest, s.second)
}
