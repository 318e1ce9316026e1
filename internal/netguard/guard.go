// Package netguard keeps the boot network usable for the life of the machine, because
// the root disk is reached through it.
//
// It puts back what the distribution's tools take away, follows the address to the
// bridge, bond or VRF that the boot NIC is built into, renews the lease and defends the
// address. It finds no network; that is for netconnect. The invariant: until the last
// unmount the boot link is up and carries an address that we still believe in; a new
// address is added before an old one goes.
package netguard

import (
	"cmp"
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/contain"
	"viver.lan/internal/dhcpclient"
	"viver.lan/internal/notify"
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
	Moved func(holder bootnet.Card)
	// askEvery is the longest pause between DISCOVERs for a foreign DHCP server; 0 means
	// dhcpclient.AskEvery.
	askEvery time.Duration
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
	moved   func(holder bootnet.Card)
	ask     time.Duration // see Config.askEvery
	defence defence

	changes     notify.Signal // the kernel reported a change
	linkChanged notify.Signal // another device has the address, or the cable was pulled and is back
	conflicts   notify.Signal // another machine uses our address
	replaced    notify.Signal // there is another lease

	// changing is held by whoever changes the boot network, over netlink too, so that a
	// change of address is seen whole. It is taken before mu.
	changing  sync.Mutex
	downSince map[int]time.Time // devices that somebody switched off, since when
	// unannounced says that the neighbours may know another MAC address as ours.
	unannounced bool

	// mu guards what follows. It is written with changing held too, so who holds that
	// reads it without mu. Nothing waits with mu held.
	mu      sync.Mutex
	lease   bootnet.Lease
	carrier carrier
	link    bootnet.Card // the boot NIC
	// top is where the boot NIC's frames come out, holder what has the address.
	top, holder bootnet.Card
}

// New returns a guard for a network that package netconnect has set up.
func New(cfg Config) *Guard {
	g := &Guard{log: cfg.Log, changed: cfg.Changed, moved: cfg.Moved, link: cfg.Network.Card, ask: cmp.Or(cfg.askEvery, dhcpclient.AskEvery), lease: cfg.Network.Lease,
		top: cfg.Network.Card, holder: cfg.Network.Holder(), defence: newDefence(),
		changes: notify.NewSignal(), linkChanged: notify.NewSignal(), conflicts: notify.NewSignal(), replaced: notify.NewSignal()}
	if g.changed == nil {
		g.changed = func(_, _ bootnet.Lease) {}
	}
	if g.moved == nil {
		g.moved = func(bootnet.Card) {}
	}
	return g
}

// leaseNow returns the lease as it stands.
func (g *Guard) leaseNow() bootnet.Lease {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lease
}

// Run guards until ctx ends; it returns nil then. It gives no other error:
// whatever fails is logged and tried again, because nobody could do better.
func (g *Guard) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for what, part := range map[string]func(){
		"the kernel's network reports": func() { g.watch(ctx) },
		"the boot link":                func() { g.maintain(ctx) },
		"ARP on the boot link":         func() { g.defend(ctx) },
		"DHCP servers that come later": func() { g.watchServers(ctx) },
		"the lease":                    func() { g.renewForever(ctx) },
	} {
		group.Go(func() error { g.restart(ctx, what, part); return nil })
	}
	return group.Wait()
}

// restart runs a part of the guard until it ends. After a panic, which a packet may
// cause, the part starts again.
func (g *Guard) restart(ctx context.Context, what string, part func()) {
	for contain.Call(g.log, what, func() error { part(); return nil }) != nil {
		if sleep.For(ctx, time.Second) != nil {
			return
		}
	}
}

// checkEvery is how often the guard checks even if the kernel reported nothing.
const checkEvery = 15 * time.Second

// watch signals what the kernel reports about links, addresses and routes. What
// exactly changed does not matter; maintain checks everything.
func (g *Guard) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := g.changes.FollowKernel(ctx, unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV4_RULE)
		if ctx.Err() != nil {
			return
		}
		g.log.Warn("lost the kernel's network reports, subscribing again", "error", err)
		_ = sleep.For(ctx, time.Second) // the loop checks ctx
	}
}

// maintain restores the boot link after each change, and now and then without one. A
// tool that undoes it gets ten quick answers, then one per second.
func (g *Guard) maintain(ctx context.Context) {
	limit := rate.NewLimiter(rate.Every(time.Second), 10)
	logged := rate.Sometimes{First: 10, Interval: time.Minute}
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		r, err := g.restore()
		if err != nil {
			logged.Do(func() { g.log.Error("boot link not restored", "link", r.link.String(), "error", err) })
		}
		if len(r.changes) > 0 {
			logged.Do(func() { g.log.Warn("boot link restored", "link", r.link.Name, "changes", r.String()) })
		}
		g.follow(r)
		if (err != nil || len(r.changes) > 0) && limit.Wait(ctx) != nil {
			return
		}
		if err != nil {
			continue
		}
		var due <-chan time.Time
		if r.checkIn > 0 {
			due = time.After(r.checkIn)
		}
		select {
		case <-g.changes:
		case <-due:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// follow reports the device that has the address, if it is another one now; whoever
// listens on the link opens a new socket.
func (g *Guard) follow(r repair) {
	if !r.moved {
		return
	}
	g.log.Warn("the boot network's address is on another device now", "link", r.link.Name, "device", r.holder.Name, "mac", r.holder.MAC)
	g.moved(r.holder)
	g.linkChanged.Send()
}

// dhcpLink returns the link that DHCP is spoken on, and the lease: what comes for
// the boot NIC's MAC address comes out there.
func (g *Guard) dhcpLink() (bootnet.Card, bootnet.Lease) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return bootnet.Card{Index: g.top.Index, Name: g.top.Name, MAC: g.link.MAC, Driver: g.link.Driver}, g.lease
}

// Plugged reports whether the boot NIC had a carrier at the last check.
func (g *Guard) Plugged() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.carrier.lost.IsZero()
}

// addressHolder returns the device that has the address, and the address.
func (g *Guard) addressHolder() (bootnet.Card, netip.Addr) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.holder, g.lease.Address.Addr()
}
