package netconf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// GuardConfig is what a Guard needs.
type GuardConfig struct {
	Network Network
	Log     *slog.Logger
	// Changed, when set, is called after every new or renewed lease; when the
	// address changes, both addresses are on the link until it returns. It
	// must not block for long.
	Changed func(old, new Lease)
	// AskEvery is the pause between questions for a foreign DHCP server, where
	// there was none; it is shorter at first. 0 means 30 s.
	AskEvery time.Duration
}

// Guard keeps the boot link usable for as long as the root disk hangs on it:
// it puts back what somebody removes, renews the lease, defends the address
// against others who use it, and where it chose the address itself looks out for
// a DHCP server that comes later. It never gives an address up unless it has a
// new one.
type Guard struct {
	log     *slog.Logger
	changed func(old, new Lease)
	link    Link
	ask     time.Duration // pause between questions for foreign servers
	cable   cable
	// replugged has an entry when the cable was pulled and is back.
	replugged chan struct{}
	defence   defence
	// contested holds a token when another machine uses our address.
	contested chan struct{}

	mu    sync.Mutex
	lease Lease
}

// NewGuard returns a guard for a network that Connect has set up.
func NewGuard(cfg GuardConfig) *Guard {
	g := &Guard{log: cfg.Log, changed: cfg.Changed, link: cfg.Network.Link, ask: cfg.AskEvery, lease: cfg.Network.Lease,
		replugged: make(chan struct{}, 1), defence: newDefence(), contested: make(chan struct{}, 1)}
	if g.ask == 0 {
		g.ask = askServersEvery
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	if g.changed == nil {
		g.changed = func(_, _ Lease) {}
	}
	return g
}

// Lease returns the lease as it stands.
func (g *Guard) Lease() Lease {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lease
}

// Run guards until ctx ends; it returns nil then. It gives no other error:
// whatever fails is logged and tried again, because nobody could do better.
func (g *Guard) Run(ctx context.Context) error {
	nudge := make(chan struct{}, 1)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { g.watch(ctx, nudge); return nil })
	group.Go(func() error { g.keep(ctx, nudge); return nil })
	group.Go(func() error { g.defend(ctx); return nil })
	group.Go(func() error {
		g.awaitServer(ctx)
		g.renewForever(ctx)
		return nil
	})
	return group.Wait()
}

// lookEvery is how often the guard looks even if the kernel reported nothing.
const lookEvery = 15 * time.Second

// watch turns the kernel's reports about links, addresses and routes into
// nudges. What exactly changed does not matter; keep looks for itself.
func (g *Guard) watch(ctx context.Context, nudge chan<- struct{}) {
	for ctx.Err() == nil {
		err := g.watchOnce(ctx, nudge)
		if ctx.Err() != nil {
			return
		}
		g.log.Warn("lost the kernel's network reports, subscribing again", "error", err)
		_ = sleep(ctx, time.Second) // ctx is looked at above
	}
}

func (g *Guard) watchOnce(ctx context.Context, nudge chan<- struct{}) error {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE)
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

// keep looks after every nudge, and now and then without one. A tool that
// fights with us gets ten quick answers, then one per second.
func (g *Guard) keep(ctx context.Context, nudge <-chan struct{}) {
	limit := rate.NewLimiter(rate.Every(time.Second), 10)
	say := rate.Sometimes{First: 10, Interval: time.Minute}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		restored, err := g.restore()
		if err != nil {
			say.Do(func() { g.log.Error("boot link not restored", "link", g.link.String(), "error", err) })
		}
		if restored != "" {
			say.Do(func() { g.log.Warn("put back on the boot link", "link", g.link.Name, "what", restored) })
		}
		if err != nil || restored != "" {
			if limit.Wait(ctx) != nil {
				return
			}
		}
		if err != nil {
			continue
		}
		select {
		case <-nudge:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// restore puts back what is missing and says what that was.
func (g *Guard) restore() (what string, err error) {
	g.mu.Lock() // so that a change of address is seen whole
	defer g.mu.Unlock()
	l, err := g.find()
	if err != nil {
		return "", err
	}
	add := func(s string) {
		if what != "" {
			what += ", "
		}
		what += s
	}
	g.lookAtCable(l)
	if l.Attrs().RawFlags&unix.IFF_UP == 0 {
		if err := LinkUp(g.link.Index); err != nil {
			return what, err
		}
		add("link up")
	}
	if ok, err := hasAddress(g.link.Index, g.lease.Address); err != nil {
		return what, err
	} else if !ok {
		if err := addAddress(g.link.Index, g.lease.Address); err != nil {
			return what, err
		}
		add("address " + g.lease.Address.String())
	}
	if ok, err := hasConnectedRoute(g.link.Index, g.lease.Address); err != nil {
		return what, err
	} else if !ok {
		if err := netlink.RouteReplace(connectedRoute(g.link.Index, g.lease.Address)); err != nil {
			return what, fmt.Errorf("put back the route to %s: %w", g.lease.Address.Masked(), err)
		}
		add("route to " + g.lease.Address.Masked().String())
	}
	if what == "" || !g.lease.Router.IsValid() {
		return what, nil
	}
	// The default route is the distribution's to change, and the root disk does
	// not need it. We only put it back when it went with what we put back now.
	if ok, err := hasDefaultRoute(); err != nil || ok {
		return what, err
	}
	if err := setDefaultRoute(g.link.Index, g.lease); err != nil {
		return what, err
	}
	add("default route")
	return what, nil
}

// find returns the boot link by its index, or by its MAC when the driver was
// reloaded and the index is a new one.
func (g *Guard) find() (netlink.Link, error) {
	l, err := netlink.LinkByIndex(g.link.Index)
	if err == nil {
		g.link.Name = l.Attrs().Name // udev may have renamed it
		return l, nil
	}
	if !errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, fmt.Errorf("find the boot link: %w", err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("find the boot link: %w", err)
	}
	for _, l := range links {
		if isCard(l) && MAC(l.Attrs().HardwareAddr) == g.link.MAC {
			g.link.Index, g.link.Name = l.Attrs().Index, l.Attrs().Name
			return l, nil
		}
	}
	return nil, fmt.Errorf("the boot link %s is gone, and no other card has its address", g.link)
}

// current returns the link and the lease together.
func (g *Guard) current() (Link, Lease) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.link, g.lease
}
