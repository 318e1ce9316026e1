// Package blockdaemon is @vfield, the process that a node's root disk hangs on;
// and the same volume on any machine, for NBD clients.
//
// It puts the parts together, follows the membership for them, and keeps what
// has to outlive a restart: of the process in /run/viver, of the machine on the
// saved-data disk. It decides nothing about pieces (package vfield does) or about
// the network (package netguard does). Whatever fails here ends the process, and
// the supervisor starts the next, which finds all of it again.
package blockdaemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/blockdev"
	"viver.lan/internal/bootnet"
	"viver.lan/internal/cluster"
	"viver.lan/internal/contain"
	"viver.lan/internal/control"
	"viver.lan/internal/durable"
	"viver.lan/internal/event"
	"viver.lan/internal/firewall"
	"viver.lan/internal/identity"
	"viver.lan/internal/klog"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/livestore"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/nbd"
	"viver.lan/internal/netguard"
	"viver.lan/internal/notify"
	"viver.lan/internal/operator"
	"viver.lan/internal/piecestore"
	"viver.lan/internal/protect"
	"viver.lan/internal/publication"
	"viver.lan/internal/segment"
	"viver.lan/internal/vfield"
)

// node is the block daemon, put together from its parts.
type node struct {
	log      *slog.Logger
	events   *event.Log
	boot     *control.Boot
	image    publication.Image // that this node runs
	manifest *manifest.Manifest
	info     *metainfo.Info
	store    *piecestore.Store
	second   *Second // nil for an image from before there were owners
	volume   *vfield.Volume
	startup  *startup
	shared   int64 // bytes, see sharedBudget
	key      identity.Key
	start    uint64 // number of this start, see keyfile.NextStart
	// networkMu guards network once RunNode has begun: the guard's parts change it.
	networkMu sync.Mutex
	network   bootnet.Network
	guard     *netguard.Guard
	firewall  *firewall.Keeper // nil when the settings say so
	cluster   *cluster.Cluster
	live      *livestore.Store
	moved     chan struct{}          // the lease has a new address
	device    atomic.Pointer[string] // set once attached
	changes   notify.Notifier        // of the status
	panics    contain.Counter
	runes     bootRunes
	rolesMu   sync.Mutex // is held while the members are told of roles
}

// RunNode is this machine's root disk until it is switched off. A part that fails ends
// the process: the supervisor starts it again, it finds its pieces and takes the
// disk over, and whoever reads only waits. It begins when control.AwaitStart of start
// returns.
func RunNode(ctx context.Context, start io.Reader) error {
	n := &node{events: event.NewLog("vfield", klog.Uptime), moved: make(chan struct{}, 1)}
	n.log = n.panics.Watch(klog.New(os.Stderr, "vfield"))
	if err := protect.ThisProcess(); err != nil {
		n.log.Warn("not fully protected", "error", err)
	}
	if port, err := event.OpenPort("/sys", "/dev", event.PortName("vfield")); err == nil {
		n.events.AddSink(port)
	}
	if err := control.AwaitStart(start); err != nil {
		return err
	}
	if err := n.open(); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.guard.Run(ctx) })
	if n.firewall != nil {
		g.Go(func() error { return n.firewall.Run(ctx) })
	}
	g.Go(func() error { return n.watchAddress(ctx) })
	g.Go(func() error { return n.volume.Run(ctx) })
	g.Go(func() error { return n.startup.run(ctx) })
	g.Go(func() error { return n.cluster.Run(ctx) })
	g.Go(func() error { return FollowMembers(ctx, n.cluster, n.volume, n.info.Infohash, n.boot.Origin) })
	g.Go(func() error { return follow(ctx, n.cluster, func() bool { n.changes.Notify(); return false }) })
	g.Go(func() error { return control.Serve(ctx, control.Socket, control.AgentID, n, n.log) })
	g.Go(func() error {
		if err := segment.Serve(ctx, control.SegmentSocket, control.AgentID, n.log); err != nil {
			n.log.Warn("GRUB of other machines gets small segments from this one", "error", err)
		}
		return nil
	})
	g.Go(func() error {
		return (&savedData{dir: savedDataDir(1), overrides: n.cluster, key: n.key, mac: n.boot.MAC, start: n.start, log: n.log}).run(ctx)
	})
	g.Go(func() error { return saveNetworkName(ctx, n.cluster, control.NetworkNameFile, n.log) })
	g.Go(func() error { return n.serveDisk(ctx) })
	g.Go(func() error { return publishHostKey(ctx, n.cluster, control.HostKeyFile, n.log) })
	g.Go(func() error { return n.live.Run(ctx) })
	g.Go(func() error {
		return (&roomWatch{look: func() *control.Written { return written("/proc/1/root") }, wall: wall, log: n.log}).run(ctx)
	})
	if n.second != nil {
		g.Go(func() error { return n.second.Run(ctx) })
	}
	g.Go(func() error { return writeKnownHosts(ctx, n.cluster, control.KnownHosts, n.log) })
	return g.Wait()
}

// open reads what uinit left and readies the parts; nothing runs yet. The
// root disk waits for it, so it looks at nothing on the saved-data disk, which may hang.
func (n *node) open() error {
	if err := n.readState(); err != nil {
		return err
	}
	n.guard = netguard.New(netguard.Config{Network: n.network, Log: n.log, Changed: n.leaseChanged, Moved: n.addressMoved})
	if n.boot.FirewallOpen {
		n.firewall = firewall.New(n.openPorts())
	}
	if err := n.openVolume(); err != nil {
		return err
	}
	if err := n.openCluster(); err != nil {
		return err
	}
	n.live = livestore.New(livestore.Config{Kind: livestore.LiveLayers(), Dir: control.LiveDir, Saved: filepath.Join(savedDataDir(1), livestore.SavedDir),
		Network: livestore.On(n.cluster), Changed: n.liveChanged, Log: n.log})
	n.openSecond()
	return nil
}

// readState reads what uinit left, and what the daemon before this one did.
func (n *node) readState() (err error) {
	if n.boot, err = control.ReadBoot(control.BootFile); err != nil {
		return err
	}
	if n.image, err = publication.ReadImage(control.RunDir); err != nil {
		return fmt.Errorf("open the image's description: %w", err)
	}
	n.manifest, n.info = n.image.Manifest, n.image.Info
	if n.network, err = bootnet.ReadNetwork(control.BootNetworkFile); err != nil {
		return err
	}
	n.key, n.start, err = openIdentity(control.IdentityFile, control.SequenceFile, n.log)
	return err
}

func (n *node) openVolume() error {
	store, memory, err := n.openStore()
	if err != nil {
		return err
	}
	n.store, n.shared = store, sharedBudget(store, n.boot.First)
	n.startup = newStartup(n.manifest, control.RecordFile, n.log, n.events)
	cfg := vfield.Config{
		Info: n.info, Store: store, Fallback: memory, First: n.boot.First, Key: n.key,
		Listen:  netip.AddrPortFrom(n.network.Lease.Address.Addr(), control.SwarmPort),
		Network: n.network.Lease.Address.Masked(),
		Machine: bootnet.MachineAt, Changed: n.changes.Notify, Log: n.log, Events: n.events, Record: n.startup.take,
	}
	if n.boot.Medium != "" {
		// After a restart the medium may be gone; the swarm has what it had.
		if dir, err := vfield.OpenDir(n.boot.Medium, n.info); err != nil {
			n.log.Warn("medium not used", "error", err)
		} else {
			cfg.Medium = dir
		}
	}
	if n.volume, err = vfield.New(cfg); err != nil {
		return err
	}
	n.startup.begin(n.volume)
	if host := n.boot.Host.Addr(); host.IsValid() {
		n.volume.AddPeer(netip.AddrPortFrom(host, control.SwarmPort), host == n.boot.Origin)
	}
	return nil
}

func (n *node) openCluster() error {
	verify, err := verifyOverrides("/" + manifest.OwnerKey)
	if err != nil {
		n.log.Warn("no overrides of the operator are taken", "error", err)
	}
	var seeds []netip.AddrPort
	if host := n.boot.Host.Addr(); host.IsValid() {
		seeds = append(seeds, netip.AddrPortFrom(host, cluster.DefaultPort))
	}
	said, err := readRoles(control.RolesFile)
	if err != nil {
		n.log.Warn("the roles of this machine are known when it is told them again", "error", err)
	}
	if said == nil {
		said = &saidRoles{Features: features(n.boot.Features, false)}
	}
	meta := cluster.Meta{Hostname: n.boot.Hostname, MAC: n.boot.MAC, Network: readNetworkName(control.NetworkNameFile), SwarmPort: control.SwarmPort, HTTPPort: n.boot.ServePort(),
		First: n.boot.First, Budget: n.shared, Infohash: n.manifest.Infohash,
		Memory: uint64(max(0, n.boot.MachineMemory)), CPUs: n.boot.CPUs, Features: said.Features, TakesRoles: said.Takes, Claims: said.Held}
	n.cluster, err = cluster.New(cluster.Config{
		Key: n.key, Start: n.start, SavedNetwork: n.boot.SavedNetwork, Bind: n.network.Lease.Address.Addr(), Port: cluster.DefaultPort,
		Network: n.network.Lease.Address.Masked(), Seeds: seeds,
		Meta: meta, Verify: verify, Log: n.log, Events: n.events,
	})
	return err
}

// openStore opens the file for pieces on the cache disk, if there is one, or
// the one in memory. memory is where to go on when the disk fails.
func (n *node) openStore() (_ *piecestore.Store, memory piecestore.Config, err error) {
	memory = piecestore.Config{Path: filepath.Join(control.PieceDir, "store"), Info: n.info, Budget: n.boot.Memory}
	if n.boot.Cache != "" {
		store, err := piecestore.Open(piecestore.Config{Path: n.boot.Cache, Info: n.info, Budget: n.boot.CacheBudget})
		if err == nil {
			return store, memory, nil
		}
		n.log.Error("the cache disk is not used, pieces are kept in memory", "error", err)
	}
	store, err := piecestore.Open(memory)
	return store, piecestore.Config{}, err
}

// serveDisk attaches the root disk to the kernel and keeps it attached.
func (n *node) serveDisk(ctx context.Context) error {
	root := section{volume: n.volume, size: n.manifest.RootFile().Size, read: n.startup.read}
	// The kernel needs a moment to notice that a killed daemon is gone.
	attachCtx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	device, err := blockdev.Attach(attachCtx, blockdev.Config{
		Size:     root.size,
		Identity: n.manifest.Infohash.String(),
		Serve: func(ctx context.Context, conn net.Conn) error {
			return nbd.Serve(ctx, conn, root, nbd.Options{Log: n.log, Here: root.here(n.boot.Cache)})
		},
		Log: n.log,
	})
	if err != nil {
		return err
	}
	path := device.Path()
	n.device.Store(&path)
	n.changes.Notify()
	if err := durable.WriteFile(control.DeviceFile, []byte(path+"\n"), 0o644); err != nil {
		return err
	}
	n.events.Emit(event.Attached{Device: path, Again: device.Again()})
	n.log.Info("root disk attached", "device", path, "again", device.Again(), "bytes", root.size)
	return device.Run(ctx)
}

// Status implements control.Daemon.
func (n *node) Status() control.Status {
	s := n.MemberStatus()
	addVolume(&s, n.volume)
	if n.firewall != nil {
		r := n.firewall.Report()
		s.Firewall = &control.Firewall{Open: r.Open, Problems: r.Problems}
	}
	s.Written, s.Panics = written("/proc/1/root"), n.panics.Total()
	s.Lacking, s.Runes = n.boot.Lacking, n.runes.read(control.RunesBootFile)
	s.Published = n.published(true)
	return s
}

// MemberStatus implements control.Daemon.
func (n *node) MemberStatus() control.Status {
	n.networkMu.Lock()
	network := n.network
	n.networkMu.Unlock()
	s := control.Status{
		ID: n.key.ID(), Hostname: n.boot.Hostname, MAC: n.boot.MAC, Address: network.Lease.Address.Addr(), First: n.boot.First,
		Up: string(n.startup.isUp()), Image: n.manifest.Name, Infohash: n.manifest.Infohash,
		BootNetwork: bootNetwork(network, n.guard.Plugged()), Live: liveStatus(n.live.State()), Published: n.published(false),
	}
	if device := n.device.Load(); device != nil {
		s.Device = *device
	}
	addMembers(&s, n.cluster)
	return s
}

// Watch implements control.Daemon.
func (n *node) Watch() (changed <-chan struct{}, stop func()) { return n.changes.Watch() }

// PutOverride implements control.Daemon.
func (n *node) PutOverride(o operator.Override) error {
	switch {
	case o.Key == livelayer.Key:
		return n.live.Put(o)
	case o.Key == publication.Key && n.second != nil:
		return n.second.Store().Put(o)
	}
	return n.cluster.Put(o)
}

// AnnounceOff implements control.Machine.
func (n *node) AnnounceOff(ctx context.Context) error { return n.cluster.AnnounceOff(ctx) }

// BeginNetwork implements control.Beginner.
func (n *node) BeginNetwork() error {
	n.cluster.BeginNetwork()
	return nil
}

// AddLayer implements control.Layers.
func (n *node) AddLayer(layer []byte) error { return n.live.Add(layer) }

// Layer implements control.Layers.
func (n *node) Layer(ctx context.Context, d livelayer.Digest) ([]byte, error) {
	return n.live.Get(ctx, d)
}

// Open implements control.Daemon.
func (n *node) Open(ctx context.Context, name string) (io.ReadSeeker, error) {
	return openFile(ctx, name, n.volume, n.manifest, n.second)
}
