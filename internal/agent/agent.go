// Package agent is what a node does for its network besides being a root disk: it
// serves boot files, is a boot host when its rank says so, and shows people how the
// node is.
//
// It works out the rank, what the operator's overrides and the members say
// of addresses, and whether another DHCP server is on the link; package boothost does
// the serving. All that it knows of the node it has from the block daemon, and every
// byte of the image too. The invariant: it may crash and be started again at any
// time, and no root disk depends on it.
package agent

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/boothost"
	"viver.lan/internal/bootorder"
	"viver.lan/internal/control"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/event"
	"viver.lan/internal/metrics"
	"viver.lan/internal/segment"
	"viver.lan/internal/sleep"
)

// Config is what the program gives its agent.
type Config struct {
	Log    *slog.Logger
	Events *event.Log
	Panics func() uint64 // that the program contained, for its metrics
}

// agent is what one node does.
type agent struct {
	log       *slog.Logger
	daemon    *control.Client
	here      place
	offer     offer
	host      *boothost.Host
	others    *foreign
	overrides *overrides
	ranking   *ranking
	latest    atomic.Pointer[lastStatus]
}

// lastStatus is the block daemon's status, or why there is none.
type lastStatus struct {
	status *control.Status
	err    error
}

// Run serves boots until ctx ends, which is no error. When the block daemon moves
// this machine to another network it returns an error, and the supervisor starts
// the program again there.
func Run(ctx context.Context, c Config) error {
	a := &agent{log: c.Log, daemon: control.NewClient(control.Socket)}
	if err := a.open(ctx, c); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.follow(ctx) })
	g.Go(func() error { return a.host.ServeFiles(ctx) })
	g.Go(func() error { return a.serveNetboot(ctx) })
	if mode, _ := a.here.mode(); !a.here.boot.First && mode != dhcp.External {
		g.Go(func() error { return a.ranking.overhear(ctx, a.here.network.Holder()) })
	}
	return g.Wait()
}

// open reads what uinit left and what the block daemon knows, and readies the boot host;
// nothing is served yet.
func (a *agent) open(ctx context.Context, c Config) (err error) {
	if a.here, err = currentPlace(); err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, firstAnswer)
	defer cancel()
	first := firstStatus(waiting, a.daemon)
	images, offer, err := openImages(a.daemon, first)
	if err != nil {
		return err
	}
	a.offer = offer
	if first != nil && first.BootNetwork != nil {
		a.here = a.here.at(first.BootNetwork)
	}
	set := new(metrics.Set)
	countPanics(set, map[string]func() uint64{"viverd": c.Panics, "vfield": a.panics})
	cfg, err := a.here.configure(boothost.Config{Image: images[0], Also: images[1:], Status: a.status, Metrics: set, Events: c.Events, Log: c.Log})
	if err != nil {
		return err
	}
	if first != nil && offer.image != first.Infohash {
		cfg.Origin = netip.Addr{} // the medium has another image
	}
	cfg.EnlargeSegments = func(conn *net.TCPConn) error { return segment.Lend(control.SegmentSocket, conn) }
	cfg.LiveOverride = a.liveOverride
	a.others = newForeign(a.here, c.Log)
	cfg.OtherServer, cfg.Enquire = a.others.account.Present, a.others.watch.Enquire
	a.overrides = newOverrides(a.here.boot, &cfg, c.Log)
	a.ranking = newRanking(a.here, c.Log)
	cfg.Rank, cfg.Peers, cfg.Reachable, cfg.Warning = a.ranking.current, a.ranking.peers, reachable, a.warning
	if a.host, err = boothost.New(cfg); err != nil || first == nil {
		return err
	}
	return a.take(first, nil)
}

// firstStatus waits for the block daemon to answer, which may start later than this
// process. It returns nil when ctx ends before.
func firstStatus(ctx context.Context, daemon *control.Client) (first *control.Status) {
	_ = daemon.Watch(ctx, func(s *control.Status, lost error) error { // it has ended by itself or with ctx
		if first = s; lost != nil {
			return nil
		}
		return errHasStatus
	})
	return first
}

// errHasStatus ends the wait for the first status.
var errHasStatus = errors.New("the block daemon has answered")

// follow takes each status of the block daemon until ctx ends, or until what is
// served no longer fits this machine's place: then it returns errMoved.
func (a *agent) follow(ctx context.Context) error {
	err := a.daemon.Watch(ctx, a.take)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// take uses a status. While there is none, everything stays as it was.
func (a *agent) take(s *control.Status, lost error) error {
	a.latest.Store(&lastStatus{s, lost})
	if lost != nil {
		a.log.Debug("the block daemon does not answer", "error", lost)
		return nil
	}
	if s.BootNetwork != nil && !a.here.same(s.BootNetwork) {
		return errMoved
	}
	if offered(s) != a.offer {
		return errImage
	}
	a.overrides.take(s)
	a.ranking.take(s)
	return nil
}

// status is the block daemon's, for the status page.
func (a *agent) status() any {
	switch l := a.latest.Load(); {
	case l == nil:
		return map[string]string{"error": "the block daemon has not answered yet"}
	case l.err != nil:
		return map[string]string{"error": l.err.Error()}
	default:
		return l.status
	}
}

// panics is the block daemon's count; 0 while it does not answer.
func (a *agent) panics() uint64 {
	if l := a.latest.Load(); l != nil && l.err == nil {
		return l.status.Panics
	}
	return 0
}

// warning is shown on top of the status page.
func (a *agent) warning() string {
	if l := a.latest.Load(); l != nil && l.err == nil {
		return bootorder.Note(l.status)
	}
	return ""
}

const (
	// firstAnswer is how long the block daemon may take to say how things are and
	// what the operator's overrides are, before machines are served without it. A
	// reserved address must not be given to another machine meanwhile.
	firstAnswer = 2 * time.Second
	// retryServing is how long a node lets others serve alone when it cannot: a
	// program of what it booted may have the ports.
	retryServing = time.Minute
)

// errOutranked ends the netboot services of a node when enough others rank before it.
var errOutranked = errors.New("enough others serve this network")

// serveNetboot answers machines that want to boot whenever this machine's rank says
// so, until ctx ends.
func (a *agent) serveNetboot(ctx context.Context) error {
	for a.ranking.await(ctx, true) == nil {
		err := a.serveWhileRanked(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case a.here.boot.First && !errors.Is(err, errOutranked):
			return err
		}
		a.log.Warn("this node serves no boots for now", "error", err)
		if !errors.Is(err, errOutranked) && sleep.For(ctx, retryServing) != nil {
			return nil
		}
	}
	return nil // told to end
}

// serveWhileRanked answers machines that want to boot until enough others rank before
// this machine.
func (a *agent) serveWhileRanked(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.others.serve(ctx, a.here.boot.First, a.host.ServeNetboot) })
	g.Go(func() error {
		if err := a.ranking.await(ctx, false); err != nil {
			return nil
		}
		return errOutranked
	})
	return g.Wait()
}

// countPanics has the metrics ask how many faults each program contained.
func countPanics(set *metrics.Set, programs map[string]func() uint64) {
	counter := set.Counter("viver_panics_total", "Faults of a program that ended one connection or packet.", "program")
	for program, total := range programs {
		counter.Ask(total, program)
	}
}
