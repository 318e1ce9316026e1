package main

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
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/blockdev"
	"viver.lan/internal/bootnet"
	"viver.lan/internal/cluster"
	"viver.lan/internal/contain"
	"viver.lan/internal/control"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/durable"
	"viver.lan/internal/event"
	"viver.lan/internal/firewall"
	"viver.lan/internal/identity"
	"viver.lan/internal/klog"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/nbd"
	"viver.lan/internal/netguard"
	"viver.lan/internal/operator"
	"viver.lan/internal/piecestore"
	"viver.lan/internal/vfield"
)

// node is the block daemon, put together from its parts.
type node struct {
	log      *slog.Logger
	events   *event.Log
	boot     *control.Boot
	manifest *manifest.Manifest
	volume   *vfield.Volume
	key      identity.Key
	start    uint64 // number of this start, see identity.NextStart
	// networkMu guards network once Run has begun: the guard's parts change it.
	networkMu sync.Mutex
	network   bootnet.Network
	guard     *netguard.Guard
	firewall  *firewall.Keeper // nil when the settings say so
	cluster   *cluster.Cluster
	meta      cluster.Meta
	moved     chan struct{}          // the lease has a new address
	device    atomic.Pointer[string] // set once attached
	panics    contain.Counter
}

// blockDaemon is this machine's root disk until it is switched off. A part
// that fails ends the process: the supervisor starts it again, it finds its
// pieces and takes the disk over, and whoever reads only waits.
func blockDaemon(ctx context.Context) error {
	n := &node{events: event.NewLog("vfield", klog.Uptime), moved: make(chan struct{}, 1)}
	n.log = n.panics.Watch(klog.New(os.Stderr, "vfield"))
	if err := protect(); err != nil {
		n.log.Warn("not fully protected", "why", err)
	}
	if port, err := event.OpenPort("/sys", "/dev", event.PortName("vfield")); err == nil {
		n.events.AddSink(port)
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
	g.Go(func() error { return n.cluster.Run(ctx) })
	g.Go(func() error { return followMembers(ctx, n.cluster, n.volume, n.boot.Origin) })
	g.Go(func() error { return control.Serve(ctx, control.Socket, control.AgentID, n, n.log) })
	g.Go(func() error {
		return (&kept{dir: savedData(1), table: n.cluster, key: n.key, mac: n.boot.MAC, start: n.start, log: n.log}).run(ctx)
	})
	g.Go(func() error { return keepNetwork(ctx, n.cluster, control.NetworkFile, n.log) })
	g.Go(func() error { return n.serveDisk(ctx) })
	g.Go(func() error { return publishHostKey(ctx, n.cluster, n.meta, control.HostKeyFile, n.log) })
	g.Go(func() error { return keepKnownHosts(ctx, n.cluster, control.KnownHosts, n.log) })
	return g.Wait()
}

// open reads what uinit left and readies the parts; nothing runs yet.
func (n *node) open() error {
	var err error
	if n.boot, err = control.ReadBoot(control.BootFile, control.MoveFile); err != nil {
		return err
	}
	if n.manifest, err = readManifest(control.ManifestFile); err != nil {
		return err
	}
	info, err := readMetainfo(control.MetainfoFile)
	if err != nil {
		return err
	}
	if n.network, err = readNetwork(bootnet.StateFile); err != nil {
		return err
	}
	if n.key, n.start, err = openIdentity(control.IdentityFile, control.SequenceFile, n.log); err != nil {
		return err
	}
	n.guard = netguard.New(netguard.Config{Network: n.network, Log: n.log, Changed: n.leaseChanged, Moved: n.addressMoved})
	if n.boot.FirewallOpen {
		n.firewall = firewall.New(n.openPorts())
	}
	store, memory, err := n.openStore(info)
	if err != nil {
		return err
	}
	cfg := vfield.Config{
		Info: info, Store: store, Fallback: memory, First: n.boot.First, Key: n.key,
		Listen:  netip.AddrPortFrom(n.boot.Address, control.SwarmPort),
		Network: n.network.Lease.Address.Masked(),
		Machine: bootnet.MachineAt, Log: n.log, Events: n.events,
	}
	if n.boot.Medium != "" {
		// After a restart the medium may be gone; the swarm has what it had.
		if dir, err := vfield.OpenDir(n.boot.Medium, info); err != nil {
			n.log.Warn("medium not used", "why", err)
		} else {
			cfg.Medium = dir
		}
	}
	if n.volume, err = vfield.New(cfg); err != nil {
		return err
	}
	var seeds []netip.AddrPort
	if host := n.boot.Host.Addr(); host.IsValid() {
		n.volume.AddPeer(netip.AddrPortFrom(host, control.SwarmPort), host == n.boot.Origin)
		seeds = append(seeds, netip.AddrPortFrom(host, control.GossipPort))
	}
	verify, err := entriesOf("/" + manifest.OwnerKey)
	if err != nil {
		n.log.Warn("no entries of the operator are taken", "why", err)
	}
	n.meta = cluster.Meta{Hostname: n.boot.Hostname, MAC: n.boot.MAC, Network: readNetworkName(control.NetworkFile), SwarmPort: control.SwarmPort, HTTPPort: n.boot.ServePort(),
		First: n.boot.First, Budget: keeps(store, n.boot.First), Infohash: n.manifest.Infohash}
	n.cluster, err = cluster.New(cluster.Config{
		Key: n.key, Start: n.start, SavedNetwork: n.boot.SavedNetwork, Bind: n.boot.Address, Port: control.GossipPort,
		Network: n.network.Lease.Address.Masked(), Seeds: seeds,
		Meta: n.meta, Verify: verify, Log: n.log, Events: n.events,
	})
	return err
}

// openStore opens the file for pieces on the cache disk, if there is one, or
// the one in memory. memory is where to go on when the disk fails.
func (n *node) openStore(info *metainfo.Info) (_ *piecestore.Store, memory piecestore.Config, err error) {
	memory = piecestore.Config{Path: filepath.Join(control.PieceDir, "store"), Info: info, Budget: n.boot.Memory}
	if n.boot.Cache != "" {
		store, err := piecestore.Open(piecestore.Config{Path: n.boot.Cache, Info: info, Budget: n.boot.CacheBudget})
		if err == nil {
			return store, memory, nil
		}
		n.log.Error("the cache disk is not used, pieces are kept in memory", "why", err)
	}
	store, err := piecestore.Open(memory)
	return store, piecestore.Config{}, err
}

// leaseChanged keeps a renewed lease for the next start of this daemon. With a
// new address everything that is bound to the old one begins again: this
// process ends, and the supervisor starts the next.
func (n *node) leaseChanged(old, renewed bootnet.Lease) {
	n.keepNetwork(func(state *bootnet.Network) { state.Lease = renewed })
	if old.Address == renewed.Address {
		return
	}
	n.boot.Address = renewed.Address.Addr()
	if n.boot.DHCP == string(dhcp.Full) && renewed.Source == bootnet.SourceDHCP && !renewed.Viver {
		n.boot.DHCP = string(dhcp.Proxy)
		n.boot.ForeignDHCP = append(n.boot.ForeignDHCP, bootnet.Offer{Server: renewed.Server, ServerMAC: renewed.ServerMAC}.String())
	}
	if err := control.WriteState(control.MoveFile, control.Move{Address: n.boot.Address, DHCP: n.boot.DHCP, ForeignDHCP: n.boot.ForeignDHCP}); err != nil {
		n.log.Warn("new address not kept for a restart", "why", err)
	}
	n.moved <- struct{}{}
}

// addressMoved tells the agent which device its sockets belong to now. Ours are
// bound to the address and go on.
func (n *node) addressMoved(holder bootnet.Link) {
	n.keepNetwork(func(state *bootnet.Network) {
		state.Upper = nil
		if holder.Index != state.Link.Index {
			state.Upper = &holder
		}
	})
}

// keepNetwork changes what the agent, and the next start of this daemon, know of
// the network.
func (n *node) keepNetwork(change func(*bootnet.Network)) {
	n.networkMu.Lock()
	defer n.networkMu.Unlock()
	change(&n.network)
	if err := writeNetwork(bootnet.StateFile, n.network); err != nil {
		n.log.Warn("what changed of the network is not kept for a restart", "why", err)
	}
}

// errMoved ends the daemon so that it begins again on its new address.
var errMoved = errors.New("this machine has a new address; starting again on it")

// watchAddress waits for a new address.
func (n *node) watchAddress(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-n.moved:
		return errMoved
	}
}

// serveDisk attaches the root disk to the kernel and keeps it attached.
func (n *node) serveDisk(ctx context.Context) error {
	root := section{n.volume, 0, n.manifest.RootFile().Size}
	// The kernel needs a moment to notice that a killed daemon is gone.
	attachCtx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	device, err := blockdev.Attach(attachCtx, blockdev.Config{
		Size:     root.size,
		Identity: n.manifest.Infohash.String(),
		Serve: func(ctx context.Context, conn net.Conn) error {
			return nbd.Serve(ctx, conn, root, nbd.Options{Log: n.log})
		},
		Log: n.log,
	})
	if err != nil {
		return err
	}
	path := device.Path()
	n.device.Store(&path)
	if err := durable.WriteFile(control.DeviceFile, []byte(path+"\n"), 0o644); err != nil {
		return err
	}
	n.events.Emit(event.Attached{Device: path, Again: device.Again()})
	n.log.Info("root disk attached", "device", path, "again", device.Again(), "bytes", root.size)
	return device.Run(ctx)
}

// Status implements control.Daemon.
func (n *node) Status() control.Status {
	s := volumeStatus(n.volume, n.cluster)
	s.ID = string(n.key.ID())
	s.Hostname, s.MAC, s.Address, s.First = n.boot.Hostname, n.boot.MAC, n.guard.Lease().Address.Addr().String(), n.boot.First
	s.Image, s.Infohash = n.manifest.Name, n.manifest.Infohash
	if device := n.device.Load(); device != nil {
		s.Device = *device
	}
	s.Written, s.Panics = written("/proc/1/root"), n.panics.Total()
	s.Checks = append(n.checks(), pieceChecks(&s)...)
	return s
}

// Entries implements control.Daemon.
func (n *node) Entries() []operator.Entry { return n.cluster.Entries() }

// Put implements control.Daemon.
func (n *node) Put(e operator.Entry) error { return n.cluster.Put(e) }

// Open implements control.Daemon.
func (n *node) Open(ctx context.Context, name string) (io.ReadSeeker, error) {
	file, offset, ok := n.manifest.Lookup(name)
	if !ok {
		return nil, fmt.Errorf("open %s: %w", name, os.ErrNotExist)
	}
	return io.NewSectionReader(readerAt{ctx, n.volume}, offset, file.Size), nil
}
