package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"viver.lan/internal/boothost"
	"viver.lan/internal/contain"
	"viver.lan/internal/control"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/event"
	"viver.lan/internal/klog"
	"viver.lan/internal/manifest"
	"viver.lan/internal/sleep"
)

// run serves boots until ctx ends. When the block daemon moves this machine to
// another network it ends, and the supervisor starts it again there.
func run(ctx context.Context) error {
	var panics contain.Counter
	log := panics.Watch(klog.New(os.Stderr, "viverd"))
	events := event.NewLog("viverd", klog.Uptime)
	if port, err := event.OpenPort("/sys", "/dev", event.PortName("viverd")); err == nil {
		defer port.Close()
		events.AddSink(port)
	}
	img, err := openImage()
	if err != nil {
		return err
	}
	metrics := prometheus.NewRegistry()
	countPanics(metrics, map[string]func() uint64{"viverd": panics.Total, "vfield": img.panics})
	here, err := currentPlace()
	if err != nil {
		return err
	}
	cfg, err := here.configure(boothost.Config{
		Image:   img,
		Status:  sparingly(statusEvery, time.Now, img.status),
		Metrics: metrics,
		Events:  events,
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
	g.Go(func() error { return inviteInTurn(ctx, host, turns, others, here.boot.First) })
	if !here.boot.First && cfg.Mode != dhcp.External {
		g.Go(func() error { return turns.overhear(ctx, here.network.Holder()) })
	}
	return g.Wait()
}

// inviteInTurn answers machines that want to boot whenever it is this machine's
// turn, until ctx ends.
func inviteInTurn(ctx context.Context, host *boothost.Host, turns *turns, others *foreign, first bool) error {
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
		turns.log.Warn("this node serves no boots for now", "why", err)
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

// optional reads a file that may be absent; its content is then empty.
func optional(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return []byte{}, nil
	}
	return data, err
}

// image serves the payload through the block daemon, so that a boot host needs
// no medium once the swarm holds the image.
type image struct {
	manifest        *manifest.Manifest
	text, signature []byte // of the manifest, as uinit got and checked them
	metainfo        []byte
	daemon          *control.Client
}

func openImage() (*image, error) {
	text, err := os.ReadFile(control.ManifestFile)
	if err != nil {
		return nil, fmt.Errorf("open the image's manifest: %w", err)
	}
	m, err := manifest.Read(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	signature, err := os.ReadFile(control.SignatureFile)
	if err != nil {
		return nil, fmt.Errorf("open the image's signature: %w", err)
	}
	metainfo, err := os.ReadFile(control.MetainfoFile)
	if err != nil {
		return nil, fmt.Errorf("open the image's metainfo: %w", err)
	}
	return &image{manifest: m, text: text, signature: signature, metainfo: metainfo, daemon: control.NewClient(control.Socket)}, nil
}

// Manifest implements boothost.Image.
func (i *image) Manifest() *manifest.Manifest { return i.manifest }

// Signed implements boothost.Image.
func (i *image) Signed() (text, signature []byte) { return i.text, i.signature }

// Metainfo implements boothost.Image.
func (i *image) Metainfo() []byte { return i.metainfo }

// Open implements boothost.Image.
func (i *image) Open(ctx context.Context, name string) (io.ReadSeekCloser, error) {
	f, _, ok := i.manifest.Lookup(name)
	if !ok {
		return nil, fmt.Errorf("open %s: %w", name, os.ErrNotExist)
	}
	return i.daemon.Open(ctx, name, f.Size), nil
}

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

// panics is the block daemon's count; 0 while it does not answer.
func (i *image) panics() uint64 {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	status, err := i.daemon.Status(ctx)
	if err != nil {
		return 0
	}
	return status.Panics
}

// status is the block daemon's word, for the status page.
func (i *image) status() any {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	status, err := i.daemon.Status(ctx)
	if err != nil {
		return map[string]string{"error": err.Error()}
	}
	return status
}
