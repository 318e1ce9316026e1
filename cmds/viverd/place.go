package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"viver.lan/internal/boothost"
	"viver.lan/internal/control"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/netconf"
)

// place is where this machine stands on its network, as uinit found it and the
// block daemon keeps it.
type place struct {
	boot    *control.Boot
	network netconf.Network
}

func currentPlace() (p place, err error) {
	if p.boot, err = control.ReadBoot(control.BootFile, control.MoveFile); err != nil {
		return p, err
	}
	f, err := os.Open(netconf.StateFile)
	if err != nil {
		return p, fmt.Errorf("read the network's state: %w", err)
	}
	defer f.Close()
	p.network, err = netconf.ReadNetwork(f)
	return p, err
}

// configure fills in what the place decides.
func (p place) configure(cfg boothost.Config) (boothost.Config, error) {
	iface, err := net.InterfaceByIndex(p.network.Link.Index)
	if err != nil {
		return cfg, fmt.Errorf("boot link %s: %w", p.network.Link, err)
	}
	lease := p.network.Lease
	cfg.Interface, cfg.Address, cfg.HTTPPort = *iface, lease.Address, p.boot.ServePort()
	if p.boot.First {
		cfg.Origin = lease.Address.Addr()
	}
	cfg.Router, cfg.DNS = lease.Router, lease.DNS
	cfg.KernelArgs = strings.Fields(p.boot.KernelArguments)
	cfg.InUse = func(ctx context.Context, addr netip.Addr) (dhcp.MAC, bool, error) {
		return netconf.InUse(ctx, p.network.Link, addr)
	}
	if cfg.Mode = dhcp.Mode(p.boot.DHCP); cfg.Mode == dhcp.Full {
		cfg.Pool = p.boot.Pool
	}
	if cfg.Settings, err = optional(control.SettingsFile); err != nil {
		return cfg, err
	}
	cfg.Runes, err = optional(control.RunesFile)
	return cfg, err
}

// lookEvery is how often we look whether this machine has moved.
const lookEvery = time.Second

// errMoved ends this process so that it begins again where the machine is now.
var errMoved = errors.New("this machine has another place on its network; starting again there")

// awaitMove returns errMoved when what is served no longer fits the place, and
// nil when ctx ends. A file that is just being replaced is looked at again.
func (p place) awaitMove(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if now, err := currentPlace(); err == nil && !p.same(now) {
			return errMoved
		}
	}
}

// same reports whether a boot host serves the same at both places. A renewed
// lease is the same one.
func (p place) same(now place) bool {
	a, b := p.network.Lease, now.network.Lease
	return p.boot.DHCP == now.boot.DHCP && p.network.Link.Index == now.network.Link.Index &&
		a.Address == b.Address && a.Router == b.Router && slices.Equal(a.DNS, b.DNS)
}

// watches reports whether this node has to see for itself that it may give
// addresses. A first node has looked at boot, and its block daemon looks out.
func (p place) watches() bool { return p.boot.DHCP == string(dhcp.Full) && !p.boot.First }

// awaitRoom returns when nobody else gives addresses on the link, or when ctx
// ends.
func (p place) awaitRoom(ctx context.Context, log *slog.Logger) error {
	for p.watches() {
		offers, err := netconf.Probe(ctx, p.network.Link, log)
		foreign := netconf.Network{Offers: offers}.Foreign()
		if err == nil && len(foreign) == 0 {
			return nil
		}
		log.Warn("this node gives no addresses", "found", foreign, "error", err)
		if !pause(ctx, retryServing) {
			return ctx.Err()
		}
	}
	return nil
}

// awaitRival returns an error when somebody else gives addresses on the link
// where we do, and nil when ctx ends.
func (p place) awaitRival(ctx context.Context) error {
	if !p.watches() {
		return nil
	}
	offer, err := netconf.AwaitForeign(ctx, p.network.Link, slog.New(slog.DiscardHandler))
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("addresses are the business of the %s", offer)
}
