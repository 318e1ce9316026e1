// Package boothost serves everything a machine needs between its firmware and
// our initramfs: the DHCP answer, the boot programs over TFTP and HTTP, the
// scripts that name kernel and initramfs, and a Router Advertisement that
// spares iPXE a long wait. It also has a status page.
//
// The parts are named services in two groups: one serves files, on every node;
// the other answers machines that broadcast a boot request, on few. A group has
// one life: all its sockets are claimed before the first packet is answered, and
// when one part fails all of it ends. It decides nothing about DHCP (package dhcp does)
// and does not know where an image's bytes come from. The invariant: only names that the image's manifest
// lists, digests of live layers, and the few names this package makes itself are ever
// served; no name is ever turned into a path.
package boothost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"golang.org/x/sync/errgroup"

	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/event"
	"viver.lan/internal/manifest"
	"viver.lan/internal/metrics"
)

// DefaultLease is how long addresses are given for unless Config says otherwise.
const DefaultLease = time.Hour

// Image is what the boot host serves files from.
type Image interface {
	Manifest() *manifest.Manifest
	// Signed returns the manifest as its owner signed it, to the byte, and the
	// signature.
	Signed() (text, signature []byte)
	// Metainfo is the image's torrent file.
	Metainfo() []byte
	// Open returns one payload file by its name in the manifest. Reads may
	// wait for the network until ctx ends.
	Open(ctx context.Context, name string) (io.ReadSeekCloser, error)
}

// Config says where and what to serve. Interface, Address, Mode, Image and Log
// are needed, the rest has sensible zero values.
type Config struct {
	// Interface is the boot NIC: name, index and hardware address.
	Interface net.Interface
	// Address is the host's own on that NIC, with the network's prefix length.
	Address netip.Prefix
	// HTTPPort is where to serve by HTTP; zero means 80.
	HTTPPort uint16
	// EnlargeSegments is called with a connection to GRUB before anything is sent on it
	// (package segment); nil leaves its segments small.
	EnlargeSegments func(*net.TCPConn) error
	// Origin is the machine with the medium; nodes are told of it. It may be
	// unset.
	Origin netip.Addr
	// Mode is dhcp.Full, dhcp.Proxy or dhcp.External. In full mode addresses are
	// given only while OtherServer, if it is set, reports that no other DHCP server
	// is on the link.
	Mode        dhcp.Mode
	OtherServer func() bool
	// Enquire, if it is set, gets each DISCOVER of firmware that was answered with
	// an address, so that a server can be noticed which answers that machine only.
	Enquire func(*dhcpv4.DHCPv4)
	// Peers lists the HTTP servers of nodes that hold all boot files; clients that
	// follow redirects are sent to them. nil means that there are none.
	Peers func() []netip.AddrPort
	// Reachable tests whether a peer is there before GRUB is sent to it, which would
	// wait 17 seconds for one that has just died, or 35 over the firmware's HTTP;
	// nil means that all are.
	Reachable func(netip.AddrPort) bool
	// Rank returns, for each request, this host's rank among the boot hosts (see the
	// function Rank); nil means that it is the only one.
	Rank func() int
	// Pool is what addresses are given from in full mode; zero means the whole
	// network of Address.
	Pool netip.Prefix
	// Lease is how long addresses are given for; zero means DefaultLease.
	Lease time.Duration
	// Router and DNS are passed on to nodes; empty means there is none.
	Router netip.Addr
	DNS    []netip.Addr
	// Hostname names a machine; nil means hostname.Default with its own prefix.
	Hostname func(ether.MAC) string
	// Table holds the addresses; nil means a new one in memory.
	Table dhcp.Table
	// ProbeAddress probes an address (RFC 5227) before it is given to a machine for
	// the first time; nil means that none is probed.
	ProbeAddress func(context.Context, netip.Addr) (by ether.MAC, used bool, err error)

	// Image is what machines boot. Files of those in Also are served, too, to machines
	// that were told of one.
	Image Image
	Also  []Image
	// KernelArgs are added to the kernel command line of every node.
	KernelArgs []string
	// Settings is served as /settings.toml and Runes as /runes.tar; nil means
	// that there is none.
	Settings, Runes []byte
	// Live opens a live layer by its digest, to be served below /boot/live; nil means
	// that there is none.
	Live func(digest string) (*os.File, error)
	// LiveOverride returns the override that points to the live layer in use, which is
	// served as /live.json; nil, also as its result, means that there is none.
	LiveOverride func() []byte

	// Warning is shown on top of the status page; nil means that there is none.
	Warning func() string
	// Status makes the answer of /status; nil means Host.Status.
	Status func() any
	// Metrics gets our counters and is served at /metrics; nil means neither.
	Metrics *metrics.Set
	Events  *event.Log
	Log     *slog.Logger
}

// Host is a boot host.
type Host struct {
	cfg      Config
	dhcp     dhcp.Config
	catalog  *catalog
	machines *machines
	counters *counters
	rounds   map[string]*atomic.Uint64 // by name, see newRounds
	relays   relays
	mtu      atomic.Int64 // of the link, in bytes
}

// service is one named part of the host.
type service interface {
	name() string
	// open claims what the service listens on.
	open(ctx context.Context) error
	// serve answers until ctx ends. It closes what open claimed.
	serve(ctx context.Context) error
}

// New checks the configuration and prepares all that will be served. It opens
// no socket.
func New(cfg Config) (*Host, error) {
	h := &Host{cfg: cfg, machines: newMachines(time.Now), counters: newCounters(cfg.Metrics)}
	if err := h.prepare(); err != nil {
		return nil, fmt.Errorf("boot host: %w", err)
	}
	return h, nil
}

func (h *Host) prepare() error {
	cfg := &h.cfg
	if cfg.Image == nil || cfg.Log == nil {
		return errors.New("no image or no log")
	}
	mac, err := ether.MACOf(cfg.Interface.HardwareAddr)
	if err != nil {
		return fmt.Errorf("interface %s: %w", cfg.Interface.Name, err)
	}
	if cfg.Lease == 0 {
		cfg.Lease = DefaultLease
	}
	if cfg.HTTPPort == 0 {
		cfg.HTTPPort = httpPort
	}
	if h.catalog, err = newCatalog(cfg); err != nil {
		return err
	}
	h.rounds = newRounds(h.catalog)
	h.mtu.Store(int64(cfg.Interface.MTU))
	h.dhcp = dhcp.Config{
		Mode: cfg.Mode, MAC: mac, Address: cfg.Address,
		Router: cfg.Router, DNS: cfg.DNS, Lease: cfg.Lease, Hostname: cfg.Hostname,
		Script:   h.catalog.url(scriptName),
		Programs: h.catalog.programs(),
	}
	if err := h.dhcp.Validate(); err != nil {
		return err
	}
	if !cfg.Pool.IsValid() {
		cfg.Pool = cfg.Address.Masked()
	}
	if cfg.Mode == dhcp.Full {
		if err := dhcp.ValidatePool(cfg.Pool, cfg.Address); err != nil {
			return err
		}
	}
	if cfg.Table == nil {
		cfg.Table = dhcp.NewLeases(cfg.Pool, time.Now, cfg.Address.Addr(), cfg.Router)
	}
	return nil
}

// mode says how much of DHCP this host does at this moment.
func (h *Host) mode() dhcp.Mode {
	if h.cfg.Mode == dhcp.Full && h.cfg.OtherServer != nil && h.cfg.OtherServer() {
		return dhcp.Proxy
	}
	return h.cfg.Mode
}

// dhcpConfig returns what DHCP decisions depend on at this moment.
func (h *Host) dhcpConfig() *dhcp.Config {
	cfg := h.dhcp
	cfg.Mode = h.mode()
	cfg.MTU = int(h.mtu.Load())
	return &cfg
}

// fileServices serve clients that know where this host is.
func (h *Host) fileServices() []service { return []service{newHTTPServer(h)} }

// netbootServices answer broadcast boot requests, in the order in which
// they start: DHCP comes last, when all that it names is served.
func (h *Host) netbootServices() []service {
	list := []service{
		&routerAdvertiser{iface: h.cfg.Interface, log: h.cfg.Log},
		newTFTPServer(h),
	}
	if h.cfg.Mode != dhcp.External {
		list = append(list,
			&dhcpServer{host: h, port: dhcp.PXEPort, title: "pxe"},
			&dhcpServer{host: h, port: dhcp.ServerPort, title: "dhcp"})
	}
	return list
}

// errOptional marks a service that the host can do without.
var errOptional = errors.New("going on without it")

// ServeFiles serves by HTTP until ctx ends, which is no error, or until that
// fails. Every node may do so at any time.
func (h *Host) ServeFiles(ctx context.Context) error { return h.run(ctx, h.fileServices()) }

// ServeNetboot answers machines that broadcast a boot request, until ctx ends,
// which is no error, or until a service fails. The answers name files that
// ServeFiles serves. Few nodes of a network do so at a time.
func (h *Host) ServeNetboot(ctx context.Context) error {
	if h.cfg.Mode == dhcp.External {
		h.cfg.Log.Info("the network's own DHCP server has to name the boot program; for how to set that, see " + h.catalog.url(""))
	}
	return h.run(ctx, h.netbootServices())
}

// run runs services with one life.
func (h *Host) run(ctx context.Context, services []service) error {
	g, ctx := errgroup.WithContext(ctx)
	var claimed []service
	for _, s := range services {
		if err := s.open(ctx); err != nil {
			err = fmt.Errorf("%s on %s: %w", s.name(), h.cfg.Interface.Name, err)
			if errors.Is(err, errOptional) {
				h.report(s, event.Degraded, err.Error())
				continue
			}
			h.report(s, event.Stopped, err.Error())
			h.abandon(claimed)
			return err
		}
		claimed = append(claimed, s)
	}
	for _, s := range claimed {
		h.report(s, event.Started, fmt.Sprintf("%s mode, %s on %s", h.mode(), h.cfg.Address, h.cfg.Interface.Name))
		g.Go(func() error {
			err := s.serve(ctx)
			if err != nil && ctx.Err() == nil {
				err = fmt.Errorf("%s on %s: %w", s.name(), h.cfg.Interface.Name, err)
				h.report(s, event.Stopped, err.Error())
				return err
			}
			h.report(s, event.Done, "")
			return nil
		})
	}
	return g.Wait()
}

// abandon closes what was claimed before another part failed to.
func (h *Host) abandon(claimed []service) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, s := range claimed {
		_ = s.serve(ctx) // returns at once and closes
	}
}

func (h *Host) report(s service, state event.State, detail string) {
	level := slog.LevelInfo
	if state == event.Stopped || state == event.Degraded {
		level = slog.LevelWarn
	}
	h.cfg.Log.Log(context.Background(), level, "boot service", "service", s.name(), "state", string(state), "detail", detail)
	h.cfg.Events.Emit(event.Service{Name: s.name(), State: state, Detail: detail})
}
