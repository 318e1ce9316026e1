package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"viver.lan/internal/boothost"
	"viver.lan/internal/bootnet"
	"viver.lan/internal/control"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/livestore"
)

// place is where this machine is on its network, as uinit found it and the block daemon
// keeps it.
type place struct {
	boot    *control.Boot
	network bootnet.Network
}

func currentPlace() (p place, err error) {
	if p.boot, err = control.ReadBoot(control.BootFile); err != nil {
		return p, err
	}
	p.network, err = bootnet.ReadNetwork(control.BootNetworkFile)
	return p, err
}

// at returns the place as the block daemon knows it now. The file may be older: it is
// not written when /run is full.
func (p place) at(now *control.BootNetwork) place {
	p.network.Card, p.network.Upper, p.network.Lease = now.Card, &now.Holder, now.Lease()
	return p
}

// configure fills in what the place decides.
func (p place) configure(cfg boothost.Config) (boothost.Config, error) {
	holder := p.network.Holder()
	iface, err := net.InterfaceByIndex(holder.Index)
	if err != nil {
		return cfg, fmt.Errorf("boot link %s: %w", holder, err)
	}
	lease := p.network.Lease
	cfg.Interface, cfg.Address, cfg.HTTPPort = *iface, lease.Address, p.boot.ServePort()
	if p.boot.First {
		cfg.Origin = lease.Address.Addr()
	}
	cfg.Router, cfg.DNS = lease.Router, lease.DNS
	cfg.KernelArgs = strings.Fields(p.boot.KernelArguments)
	cfg.ProbeAddress = func(ctx context.Context, addr netip.Addr) (ether.MAC, bool, error) {
		return bootnet.InUse(ctx, holder, addr)
	}
	cfg.Mode, cfg.Pool = p.mode()
	if cfg.Settings, err = optional(control.SettingsFile); err != nil {
		return cfg, err
	}
	cfg.Live = func(digest string) (*os.File, error) {
		f, err := livestore.Open(control.LiveDir, digest)
		if errors.Is(err, fs.ErrNotExist) {
			f, err = livestore.Open(control.PublicationDir, digest)
		}
		return f, err
	}
	cfg.Runes, err = optional(control.RunesFile)
	return cfg, err
}

// mode says what of DHCP the operator leaves to this network's boot hosts, and the
// range to give addresses from. Whether there is another server is not asked here:
// one may come and go at any time.
func (p place) mode() (dhcp.Mode, netip.Prefix) {
	network := p.network.Lease.Address
	switch pool := p.boot.Pool; {
	case p.boot.DHCP == string(dhcp.External):
		return dhcp.External, netip.Prefix{}
	case dhcp.ValidatePool(pool, network) == nil:
		return dhcp.Full, pool
	case dhcp.ValidatePool(network.Masked(), network) == nil:
		return dhcp.Full, network.Masked() // it has moved to another network
	default:
		return dhcp.Proxy, netip.Prefix{}
	}
}

// errMoved ends this process so that it begins again where the machine is now.
var errMoved = errors.New("this machine has another place on its network; starting again there")

// errImage ends this process so that it begins again with another image.
var errImage = errors.New("this network has another image for machines that boot; starting again to serve it")

// same reports whether a boot host serves the same where the machine is now. A
// renewed lease is the same one.
func (p place) same(now *control.BootNetwork) bool {
	l := p.network.Lease
	return p.network.Holder().Index == now.Holder.Index &&
		l.Address == now.Address && l.Router == now.Router && slices.Equal(l.DNS, now.DNS)
}

// optional reads a file that may be absent; its content is then empty.
func optional(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return []byte{}, nil
	}
	return data, err
}
