// Package agent is what a node does for its network besides being a root disk: in
// its turn it is the boot host, which answers machines that boot, and it shows
// people how the node is.
//
// It works out whose turn it is, what the operator's overrides and the members say
// of addresses, and whether another DHCP server is on the link; package boothost does
// the serving. All that it knows of the node it has from the block daemon, and every
// byte of the image too. The invariant: it may crash and be started again at any
// time, and no root disk depends on it.
package agent

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"viver.lan/internal/boothost"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/event"
	"viver.lan/internal/sleep"
)

// Config is what the program gives its agent.
type Config struct {
	Log    *slog.Logger
	Events *event.Log
	Panics func() uint64 // that the program contained, for its metrics
}

// Run serves boots until ctx ends, which is no error. When the block daemon moves
// this machine to another network it returns an error, and the supervisor starts
// the program again there.
func Run(ctx context.Context, c Config) error {
	log := c.Log
	img, err := openImage()
	if err != nil {
		return err
	}
	metrics := prometheus.NewRegistry()
	countPanics(metrics, map[string]func() uint64{"viverd": c.Panics, "vfield": img.panics})
	here, err := currentPlace()
	if err != nil {
		return err
	}
	cfg, err := here.configure(boothost.Config{
		Image:   img,
		Status:  sparingly(statusEvery, time.Now, img.status),
		Metrics: metrics,
		Events:  c.Events,
		Log:     log,
	})
	if err != nil {
		return err
	}
	others := newForeign(here, log)
	cfg.OtherServer, cfg.Enquire = others.account.Present, others.watch.Enquire
	turns := newTurns(img.daemon, here, newWords(img.daemon, here.boot, &cfg, log), log)
	cfg.Rank, cfg.Peers, cfg.Reachable, cfg.Warning = turns.now, turns.peers, answers, turns.warnings
	host, err := boothost.New(cfg)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return here.awaitMove(ctx) })
	g.Go(func() error { return host.ServeFiles(ctx) })
	g.Go(func() error { return netbootInTurn(ctx, host, turns, others, here.boot.First) })
	if !here.boot.First && cfg.Mode != dhcp.External {
		g.Go(func() error { return turns.overhear(ctx, here.network.Holder()) })
	}
	return g.Wait()
}

// netbootInTurn answers machines that want to boot whenever it is this machine's
// turn, until ctx ends.
func netbootInTurn(ctx context.Context, host *boothost.Host, turns *turns, others *foreign, first bool) error {
	for {
		if err := turns.await(ctx, true); err != nil {
			return nil // told to end
		}
		g, turn := errgroup.WithContext(ctx)
		g.Go(func() error { return others.serve(turn, first, host.ServeNetboot) })
		g.Go(func() error {
			if err := turns.await(turn, false); err != nil {
				return nil
			}
			return errNotOurTurn
		})
		err := g.Wait()
		switch {
		case ctx.Err() != nil:
			return nil
		case first && !errors.Is(err, errNotOurTurn):
			return err
		}
		turns.log.Warn("this node serves no boots for now", "error", err)
		if !errors.Is(err, errNotOurTurn) && sleep.For(ctx, retryServing) != nil {
			return nil
		}
	}
}

// retryServing is how long a node lets others serve alone when it cannot: a
// program of what it booted may have the ports.
const retryServing = time.Minute

// errNotOurTurn ends a host that enough others have come before.
var errNotOurTurn = errors.New("enough others serve this network")

// statusEvery is how often the block daemon is asked at most, however many look at
// the status page.
const statusEvery = time.Second

// sparingly returns ask in a form that many may call: its answer is kept for a
// while, and nobody asks while another one does.
func sparingly(every time.Duration, now func() time.Time, ask func() any) func() any {
	var mu sync.Mutex // guards the two below, and is held while ask runs
	var last any
	var asked time.Time
	return func() any {
		mu.Lock()
		defer mu.Unlock()
		if last == nil || now().Sub(asked) >= every {
			last, asked = ask(), now()
		}
		return last
	}
}

// countPanics has a registry ask how many faults each program contained.
func countPanics(registry *prometheus.Registry, programs map[string]func() uint64) {
	for program, total := range programs {
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name: "viver_panics_total", Help: "Faults of a program that ended one connection or packet.",
			ConstLabels: prometheus.Labels{"program": program},
		}, func() float64 { return float64(total()) }))
	}
}
