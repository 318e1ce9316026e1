// Package bootserver makes an installed machine the first node of a network: it serves an image
// from a directory, in place of a medium.
//
// Here everything is found out and refused that would keep machines from booting, while the
// operator still looks, and the files are written that uinit writes on a node. The volume
// and the agent then run as on every node, in processes of their own (packages blockdaemon,
// agent, supervise). The invariant: the machine's own network is looked at and never changed,
// and nothing is served that is not whole and its owner's.
package bootserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"viver.lan/internal/bootmedium"
	"viver.lan/internal/bootnet"
	"viver.lan/internal/config"
	"viver.lan/internal/control"
	"viver.lan/internal/description"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/dhcpclient"
	"viver.lan/internal/durable"
	"viver.lan/internal/imagedir"
	"viver.lan/internal/runes"
	"viver.lan/internal/sign"
	"viver.lan/internal/sleep"
	"viver.lan/internal/supervise"
)

// Config says what to serve, and where.
type Config struct {
	// Image is the image directory.
	Image string
	// Owner is whose image it must be; zero takes anybody's that fits its own initramfs.
	Owner sign.PublicKey
	// Interface is a name or a MAC address; "" is what the settings say, else the only one
	// that can be served.
	Interface string
	// Settings is a viver.toml, "" for none; Runes are bundle directories. Builtin are the
	// runes that every initramfs has.
	Settings string
	Runes    []string
	Builtin  []runes.Bundle
	// Progress is told how far a task has come, in bytes; total is 0 when it is not known.
	Progress func(task string, done, total int64)
	Log      *slog.Logger
}

// Server is ready to serve.
type Server struct {
	// Image is its name, with the infohash; Link where it is served. DHCP says what the
	// server does of DHCP, and Note what else the operator should know, "" for nothing.
	Image, Link, DHCP, Note string

	cfg      Config
	link     link
	verified *imagedir.Verified
	volume   *bootmedium.SettingsVolume
	settings config.Settings
	poolSet  bool // the settings say which addresses may be given
	boot     control.Boot
	network  bootnet.Network
	lock     *os.File
}

// Check finds out whether it can be served, as far as that is quick, takes no port and asks
// nobody.
func Check(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg}
	var err error
	if s.cfg.Image, err = filepath.Abs(cfg.Image); err != nil {
		return nil, err
	}
	if _, err := os.Stat(control.StagesFile); err == nil {
		return nil, errors.New("this machine is a node of VIVER's: it boots others already, from the image that it runs")
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("only root can serve DHCP and TFTP, whose ports are below 1024: run it with sudo")
	}
	if err := s.readSettings(); err != nil {
		return nil, err
	}
	list, err := links()
	if err != nil {
		return nil, err
	}
	if s.cfg.Interface == "" {
		s.cfg.Interface = s.settings.Interface
	}
	if s.link, err = choose(list, s.cfg.Interface); err != nil {
		return nil, err
	}
	s.Link = fmt.Sprintf("%s, %s", s.link.Name, s.link.address)
	return s, s.describe()
}

// verify reads the whole image.
func (s *Server) verify(ctx context.Context) (err error) {
	s.verified, err = imagedir.Verify(ctx, s.cfg.Image, s.cfg.Owner, func(done, total int64) { s.cfg.Progress("verify", done, total) })
	if err == nil {
		err = s.verified.Err()
	}
	if err != nil {
		return err
	}
	m := s.verified.Manifest
	s.Image = fmt.Sprintf("%s (%s)", m.Name, m.Infohash)
	s.boot.Memory = max(min(m.Size(), pieceMemory), minPieceMemory)
	return nil
}

// pieceMemory is what pieces may take beside the image's files, which the kernel keeps in
// memory, too: more than a machine reads until it is up.
const pieceMemory = 256 << 20

// describe fills in what uinit writes on a node.
func (s *Server) describe() error {
	name, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("find this machine's name: %w", err)
	}
	name, _, _ = strings.Cut(name, ".")
	pool := s.link.address.Masked()
	if s.poolSet {
		pool = s.settings.Pool
		if err := dhcp.ValidatePool(pool, s.link.address); err != nil {
			return fmt.Errorf("network.pool in %s: %w", s.cfg.Settings, err)
		}
	}
	s.boot = control.Boot{
		NodePrefix: s.settings.NodePrefix, Hostname: name, MAC: s.link.MAC, Interface: s.link.Name, BootedBy: "itself",
		First: true, Medium: s.cfg.Image, Pool: pool, DHCP: string(dhcp.Full), KernelArguments: s.settings.KernelArguments,
		Settings: s.boot.Settings, StateDir: cmp.Or(os.Getenv("STATE_DIRECTORY"), stateDir),
	}
	if s.settings.DHCP == string(dhcp.External) {
		s.boot.DHCP = string(dhcp.External)
	}
	s.network = bootnet.Network{Card: s.link.Card, Lease: bootnet.Lease{Source: bootnet.SourceStatic, Address: s.link.address,
		Router: s.settings.Router, DNS: s.settings.DNS}}
	return nil
}

// stateDir is where a server keeps what outlives it, unless its service manager says so
// (systemd.exec(5), StateDirectory=).
const stateDir = "/var/lib/viver"

// minPieceMemory is room for some pieces of any image.
const minPieceMemory = 32 << 20

// Prepare takes what only one server of a machine can have, asks the network who else
// gives addresses, and writes what volume and agent read. Close gives it back.
func (s *Server) Prepare(ctx context.Context) (err error) {
	if err := s.takeLock(); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.takePorts(ctx); err != nil {
		return err
	}
	if err := s.verify(ctx); err != nil {
		return err
	}
	if err := s.survey(ctx); err != nil {
		return err
	}
	return s.write()
}

// takeLock makes sure that no other server runs on this machine.
func (s *Server) takeLock() (err error) {
	if s.lock, err = os.OpenFile(lockFile, os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return err
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		pid, _ := os.ReadFile(lockFile)
		return errors.Join(fmt.Errorf("viver serve runs on this machine already (process %s): one serves one network; see viver status, or end it (systemctl stop viver)", pid), s.lock.Close())
	}
	return errors.Join(s.lock.Truncate(0), writeAll(s.lock, strconv.Itoa(os.Getpid())))
}

func writeAll(f *os.File, text string) error {
	_, err := f.WriteString(text)
	return err
}

// lockFile is locked by the server that runs, and says which process that is.
const lockFile = "/run/viver-serve.lock"

// takePorts makes sure that the ports are free, all of them, so that the operator learns of
// each one at once.
func (s *Server) takePorts(ctx context.Context) error {
	ports := portsOf()
	if s.boot.DHCP != string(dhcp.External) {
		ports = append(ports, dhcpPorts()...)
	}
	var errs []error
	for _, p := range ports {
		errs = append(errs, p.free(ctx, s.link))
	}
	var err error
	s.boot.Server, err = httpPort(ctx, s.link)
	if s.boot.Server != control.HTTPPort {
		s.Note = fmt.Sprintf("port %d is taken by a web server, so boot files are served on port %d", control.HTTPPort, s.boot.Server)
	}
	return errors.Join(append(errs, err)...)
}

// survey looks for DHCP servers on the link.
func (s *Server) survey(ctx context.Context) error {
	if s.boot.DHCP == string(dhcp.External) {
		s.DHCP = "none: the network's own DHCP server has to name the boot program; http://" + s.address(s.boot.Server) + "/ says how"
		return nil
	}
	s.cfg.Progress("look for DHCP servers on "+s.link.Name, 0, 0)
	found, err := dhcpclient.FindServers(ctx, s.link.Card, s.cfg.Log)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	s.network.Offers = found.Offers
	s.DHCP = fmt.Sprintf("addresses of %s, to machines that boot from the network only, while no other DHCP server is noticed", s.boot.Pool)
	for _, o := range s.network.Foreign() {
		s.DHCP = fmt.Sprintf("no addresses, because %s gives them; only the boot program (proxyDHCP)", o)
	}
	return nil
}

func (s *Server) address(port uint16) string {
	return netip.AddrPortFrom(s.link.address.Addr(), port).String()
}

// write leaves the files that volume and agent read.
func (s *Server) write() error {
	files, err := description.Read(description.In(s.cfg.Image))
	if err == nil {
		err = os.MkdirAll(control.RunDir, 0o755)
	}
	if err != nil {
		return err
	}
	if err := files.Write(control.RunDir); err != nil {
		return err
	}
	bundles, err := durable.Create(control.RunesFile, 0o644)
	if err != nil {
		return err
	}
	defer bundles.Close()
	if err := runes.WriteTar(bundles, s.volume.Runes); err != nil {
		return err
	}
	return errors.Join(
		bundles.Commit(),
		os.MkdirAll(s.boot.StateDir, 0o700),
		durable.WriteFile(control.OwnerFile, s.verified.Owner.Text(), 0o644),
		durable.WriteFile(control.SettingsFile, s.volume.Text, 0o644),
		control.WriteState(control.BootNetworkFile, s.network),
		control.WriteState(control.BootFile, &s.boot))
}

// addressEvery is how often the server looks whether it still has its address.
const addressEvery = 5 * time.Second

// Run serves until ctx ends. Volume and agent are this program with these arguments, and
// print to output.
func (s *Server) Run(ctx context.Context, output *os.File, volume, agent []string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := sleep.Every(addressEvery, func() {
		if err := s.moved(); err != nil {
			cancel(err)
		}
	})
	defer stop()
	err := supervise.Server(ctx, output, s.cfg.Log, volume, agent)
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// moved says that this machine has no longer the place on the network that it serves from.
func (s *Server) moved() error {
	l, err := netlink.LinkByIndex(s.link.Index)
	var now netip.Prefix
	if err == nil {
		now, err = addressOf(l)
	}
	if err != nil || now != s.link.address {
		return fmt.Errorf("%s has no longer the address %s, from which the machines boot: serve again; a server needs an address that stays", s.link.Name, s.link.address)
	}
	return nil
}

// Close removes what was written for this run. What outlives it stays in stateDir.
func (s *Server) Close() error {
	return errors.Join(os.RemoveAll(control.RunDir), s.lock.Close())
}

// readSettings reads settings and bundles.
func (s *Server) readSettings() (err error) {
	if s.volume, err = bootmedium.CheckVolume(s.cfg.Settings, s.cfg.Runes, s.cfg.Builtin); err != nil {
		return err
	}
	c := s.volume.Config
	s.settings, s.boot.Settings = c.Settings(), c.List()
	s.poolSet = c.Source("network.pool") != config.Default
	return nil
}
