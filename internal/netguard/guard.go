// Package netguard keeps the boot network usable for the life of the machine, because
// the root disk is reached through it.
//
// It puts back what the distribution's tools take away, follows the address to the
// bridge, bond or VRF that the boot NIC is built into, renews the lease and defends the
// address. It finds no network; that is for netconf. The invariant: until the last
// unmount the boot link is up and carries an address that we still believe in; a new
// address is added before an old one goes.
package netguard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/contain"
	"viver.lan/internal/dhcpclient"
	"viver.lan/internal/sleep"
)

// Config is what a Guard needs.
type Config struct {
	Network bootnet.Network
	Log     *slog.Logger
	// Changed, when set, is called after every new or renewed lease; when the
	// address changes, both addresses are on the link until it returns. It
	// must not block for long.
	Changed func(old, new bootnet.Lease)
	// Moved, when set, is called when another device has the address now, such as
	// a bridge that the boot NIC has become a port of. It must not block for long.
	Moved func(holder bootnet.Link)
	// AskEvery is the pause between questions for a foreign DHCP server, where
	// there was none; it is shorter at first. 0 means 30 s.
	AskEvery time.Duration
}

// Guard keeps the boot link usable for as long as the root disk hangs on it:
// it puts back what somebody removes, follows the address to the bridge, bond or
// VRF that the boot NIC is built into, renews the lease, defends the address
// against others who use it, and where it chose the address itself looks out for
// a DHCP server that comes later. It never gives an address up unless it has a
// new one.
type Guard struct {
	log     *slog.Logger
	changed func(old, new bootnet.Lease)
	moved   func(holder bootnet.Link)
	link    bootnet.Link  // the boot NIC
	ask     time.Duration // pause between questions for foreign servers
	cable   cable
	// replugged has an entry when the cable was pulled and is back.
	replugged chan struct{}
	defence   defence
	// conflicts holds a token when another machine uses our address.
	conflicts chan struct{}
	// replaced holds a token when there is another lease.
	replaced chan struct{}

	mu    sync.Mutex // guards what follows, and link while Run runs
	lease bootnet.Lease
	// top is where the boot NIC's frames come out, holder what has the address.
	top, holder bootnet.Link
	off         map[int]time.Time // devices that somebody switched off, since when
	// unannounced says that the neighbours may know another MAC address as ours.
	unannounced bool
}

// New returns a guard for a network that Connect has set up.
func New(cfg Config) *Guard {
	g := &Guard{log: cfg.Log, changed: cfg.Changed, moved: cfg.Moved, link: cfg.Network.Link, ask: cfg.AskEvery, lease: cfg.Network.Lease,
		top: cfg.Network.Link, holder: cfg.Network.Holder(),
		replugged: make(chan struct{}, 1), defence: newDefence(), conflicts: make(chan struct{}, 1), replaced: make(chan struct{}, 1)}
	if g.ask == 0 {
		g.ask = dhcpclient.AskEvery
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	if g.changed == nil {
		g.changed = func(_, _ bootnet.Lease) {}
	}
	if g.moved == nil {
		g.moved = func(bootnet.Link) {}
	}
	return g
}

// Lease returns the lease as it stands.
func (g *Guard) Lease() bootnet.Lease {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lease
}

// Run guards until ctx ends; it returns nil then. It gives no other error:
// whatever fails is logged and tried again, because nobody could do better.
func (g *Guard) Run(ctx context.Context) error {
	nudge := make(chan struct{}, 1)
	group, ctx := errgroup.WithContext(ctx)
	for what, part := range map[string]func(){
		"the kernel's network reports": func() { g.watch(ctx, nudge) },
		"the boot link":                func() { g.maintain(ctx, nudge) },
		"ARP on the boot link":         func() { g.defend(ctx) },
		"DHCP servers that come later": func() { g.watchServers(ctx) },
		"the lease":                    func() { g.renewForever(ctx) },
	} {
		group.Go(func() error { g.again(ctx, what, part); return nil })
	}
	return group.Wait()
}

// again runs a part of the guard until it ends. A fault, such as a packet may
// find, has it begin anew.
func (g *Guard) again(ctx context.Context, what string, part func()) {
	for contain.Call(g.log, what, func() error { part(); return nil }) != nil {
		if sleep.For(ctx, time.Second) != nil {
			return
		}
	}
}

// checkEvery is how often the guard looks even if the kernel reported nothing.
const checkEvery = 15 * time.Second

// watch turns the kernel's reports about links, addresses and routes into
// nudges. What exactly changed does not matter; keep looks for itself.
func (g *Guard) watch(ctx context.Context, nudge chan<- struct{}) {
	for ctx.Err() == nil {
		err := g.watchOnce(ctx, nudge)
		if ctx.Err() != nil {
			return
		}
		g.log.Warn("lost the kernel's network reports, subscribing again", "error", err)
		_ = sleep.For(ctx, time.Second) // ctx is looked at above
	}
}

func (g *Guard) watchOnce(ctx context.Context, nudge chan<- struct{}) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE)
	if err != nil {
		return fmt.Errorf("subscribe to network changes: %w", err)
	}
	closeOnce := sync.OnceFunc(s.Close)
	defer closeOnce()
	stop := context.AfterFunc(ctx, closeOnce)
	defer stop()
	for {
		_, _, err := s.Receive()
		// ENOBUFS: more happened than the socket could hold, so look.
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		select {
		case nudge <- struct{}{}:
		default: // a look is due already
		}
	}
}

// maintain looks after every nudge, and now and then without one. A tool that
// fights with us gets ten quick answers, then one per second.
func (g *Guard) maintain(ctx context.Context, nudge <-chan struct{}) {
	limit := rate.NewLimiter(rate.Every(time.Second), 10)
	say := rate.Sometimes{First: 10, Interval: time.Minute}
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		r, err := g.restore()
		if err != nil {
			say.Do(func() { g.log.Error("boot link not restored", "link", g.link.String(), "error", err) })
		}
		if len(r.done) > 0 {
			say.Do(func() { g.log.Warn("put back on the boot link", "link", g.link.Name, "what", r.String()) })
		}
		if r.moved {
			g.follow(r.holder)
		}
		if err != nil || len(r.done) > 0 {
			if limit.Wait(ctx) != nil {
				return
			}
		}
		if err != nil {
			continue
		}
		var again <-chan time.Time
		if r.again > 0 {
			again = time.After(r.again)
		}
		select {
		case <-nudge:
		case <-again:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// follow tells of the device that has the address now; whoever listens on the
// link listens anew.
func (g *Guard) follow(holder bootnet.Link) {
	g.log.Warn("the boot network's address is on another device now", "link", g.link.Name, "device", holder.Name, "mac", holder.MAC)
	g.moved(holder)
	select {
	case g.replugged <- struct{}{}:
	default: // it is known already
	}
}

// current returns the link that DHCP is spoken on, and the lease: what comes for
// the boot NIC's MAC address comes out there.
func (g *Guard) current() (bootnet.Link, bootnet.Lease) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return bootnet.Link{Index: g.top.Index, Name: g.top.Name, MAC: g.link.MAC, Driver: g.link.Driver}, g.lease
}

// Holder returns the device that has the address: the boot NIC, or what it has
// become a part of.
func (g *Guard) Holder() bootnet.Link {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.holder
}

// Plugged reports whether the boot NIC had a carrier when the guard last looked.
func (g *Guard) Plugged() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.cable.pulled.IsZero()
}

// held returns the device that has the address, and the address.
func (g *Guard) held() (bootnet.Link, netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.holder, g.lease.Address.Addr()
}
