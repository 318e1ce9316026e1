// Package vfield is the distributed disk: one read-only volume, put together
// from the pieces that this node holds, its peers have and, on the first node,
// the boot medium carries.
//
// It joins the swarm, the piece store and the medium; it does not speak NBD
// and does not know what the bytes mean. The invariant: a read returns
// verified bytes or it waits; a network that fails, a peer that lies or a
// medium that is pulled out never becomes a read error while any machine in
// reach holds the piece, or may hold it again.
package vfield

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/event"
	"viver.lan/internal/exchange"
	"viver.lan/internal/identity"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/piecestore"
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm"
)

// Config describes a node's share of the disk.
type Config struct {
	Info  *metainfo.Info
	Store *piecestore.Store
	// Fallback is where the store goes on when its file fails; none when the
	// path is empty.
	Fallback piecestore.Config
	// Medium holds the payload's bytes on the first node; nil elsewhere. It
	// may fail, lie and vanish.
	Medium io.ReaderAt
	// First says that this is the first node, also when its medium is gone.
	// A Medium implies it.
	First bool
	// Key is this node's identity in the swarm, and decides which pieces it owns.
	// It should be the same after a restart.
	Key identity.Key
	// Listen is the address for peers, on the boot link.
	Listen netip.AddrPort
	// Network, when valid, is the only range in which peers are believed.
	Network netip.Prefix
	// Machine, when set, names the machine that an address belongs to, "" when
	// that is not known.
	Machine func(netip.Addr) string
	// Params tune the scheduler; the zero value is right.
	Params schedule.Params
	Log    *slog.Logger
	Events *event.Log
}

// Timing of what is reported, not of what is decided.
const (
	waitReport   = 5 * time.Second  // a read older than that is reported,
	waitAgain    = 10 * time.Second // and again after that
	reportEvery  = time.Second
	transferEach = 2 * time.Second
)

// readAhead is how many pieces are fetched ahead of a reader by a node that
// cannot hold the whole image.
const readAhead = 8

// Volume is the disk. It is safe for concurrent use.
type Volume struct {
	cfg    Config
	info   *metainfo.Info
	store  *piecestore.Store
	swarm  *swarm.Swarm
	medium *medium // nil without one
	log    *slog.Logger
	share  *share

	playhead atomic.Int64
	demand   sync.Mutex // held to tell the swarm what is waited for

	mu      sync.Mutex
	waiting map[int]*wait
}

// New returns a volume that listens for peers; Run lets it work.
func New(cfg Config) (*Volume, error) {
	v := &Volume{cfg: cfg, info: cfg.Info, store: cfg.Store, log: cfg.Log, share: newShare(cfg), waiting: make(map[int]*wait)}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	if cfg.Medium != nil {
		v.medium = newMedium(cfg.Medium, v.info, v.log)
		v.medium.onLost = v.mediumLost
		v.medium.onFound = v.mediumFound
		v.medium.onRead = func(i int, data []byte) {
			if err := v.keep(i, data); err != nil && !errors.Is(err, piecestore.ErrFull) {
				v.log.Warn("piece of the medium not kept in memory", "piece", i, "err", err)
			}
		}
		v.medium.wanted = func(i int) bool { return !v.store.Has(i) && v.store.Used()+v.info.PieceSize(i) <= v.store.Budget() }
	}
	var handy func(int) bool
	if v.medium != nil {
		handy = func(i int) bool { return v.store.Has(i) || v.medium.rests() }
	}
	var err error
	v.swarm, err = swarm.New(swarm.Config{
		Info: v.info, Store: pieces{v}, Key: cfg.Key, Listen: cfg.Listen,
		Network: cfg.Network, Machine: cfg.Machine, Handy: handy, Origin: v.first(), Budget: v.store.Budget(), Params: cfg.Params, Log: v.log,
	})
	if err != nil {
		return nil, fmt.Errorf("volume: %w", err)
	}
	return v, nil
}

func (v *Volume) first() bool { return v.cfg.First || v.medium != nil }

// Size of the payload in bytes.
func (v *Volume) Size() int64 { return v.info.Size }

// Addr returns the address that peers are accepted at.
func (v *Volume) Addr() netip.AddrPort { return v.swarm.Addr() }

// SetNodes says how many nodes the network has, this one included and the first
// node not. A node of a large network is connected to a part of it only.
func (v *Volume) SetNodes(n int) { v.share.nodes.Store(int64(n)) }

// AddPeer names a node of the network. origin says that it is the first node.
func (v *Volume) AddPeer(addr netip.AddrPort, origin bool) {
	v.swarm.Do(func(x *exchange.Exchange) { x.AddPeer(addr, origin) })
}

// RemovePeer says that the node at addr is believed gone; a connection to it
// that lives goes on.
func (v *Volume) RemovePeer(addr netip.AddrPort) {
	v.swarm.Do(func(x *exchange.Exchange) { x.RemovePeer(addr) })
}

// Run works until ctx ends and returns nil then. Call it once. Pieces that an
// earlier run left in the store are hashed before anything is fetched that
// nobody waits for.
func (v *Volume) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if v.medium != nil {
		for i := range v.info.NumPieces() {
			v.swarm.Changed(i) // read and verified when somebody asks
		}
		g.Go(func() error { return v.medium.run(ctx) })
	}
	g.Go(func() error { return v.swarm.Run(ctx) })
	g.Go(func() error {
		if err := v.recheck(ctx); err != nil {
			return err
		}
		v.keepFound()
		return v.keepShare(ctx)
	})
	g.Go(func() error { return v.report(ctx) })
	err := g.Wait()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

// recheck hashes what the store found in its file, or does not trust any more.
func (v *Volume) recheck(ctx context.Context) error {
	found := v.store.Candidates()
	if len(found) == 0 {
		return nil
	}
	begin := time.Now()
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range min(runtime.GOMAXPROCS(0), 4) {
		g.Go(func() error {
			for ctx.Err() == nil {
				n := int(next.Add(1)) - 1
				if n >= len(found) {
					return nil
				}
				v.rehash(found[n])
			}
			return ctx.Err()
		})
	}
	err := g.Wait()
	v.log.Info("pieces found in the store hashed", "found", len(found), "right", v.store.Count(), "seconds", time.Since(begin).Seconds())
	return err
}

// keep hands a verified piece to those who wait and puts it into the store.
// Whoever waits gets the bytes even if the store has no room. What had to go
// for the piece is no longer announced.
func (v *Volume) keep(i int, parts ...[]byte) error {
	v.deliver(i, parts)
	evicted, err := v.store.Put(i, parts...)
	for _, e := range evicted {
		v.swarm.Changed(e)
		v.swarm.Do(func(x *exchange.Exchange) { x.Want(e, e+1, func(int) bool { return false }) }) // or it would come and go for ever
	}
	v.deliver(i, parts) // to those who began to wait meanwhile
	v.storeError(err)
	return err
}

// pieces is the volume as the swarm sees it.
type pieces struct{ v *Volume }

// Put implements swarm.Store.
func (p pieces) Put(i int, parts [][]byte) error { return p.v.keep(i, parts...) }

// Has implements swarm.Store.
func (p pieces) Has(i int) bool {
	return p.v.store.Has(i) || p.v.medium != nil && p.v.medium.has(i)
}

// Open implements swarm.Store.
func (p pieces) Open(ctx context.Context, i int, urgent bool) (swarm.Piece, error) {
	if ref, ok := p.v.acquire(i); ok {
		return stored{ref}, nil
	}
	if p.v.medium == nil {
		return nil, fmt.Errorf("piece %d is not here", i)
	}
	data, err := p.v.medium.read(ctx, i, urgent)
	if err != nil {
		return nil, err
	}
	return inMemory(data), nil
}

// Unreadable implements swarm.Store.
func (p pieces) Unreadable(i int, err error) { p.v.unreadable(i, err) }

type stored struct{ piecestore.Ref }

func (s stored) Bytes() []byte { return nil }

type inMemory []byte

func (inMemory) File() (*os.File, int64) { return nil, 0 }
func (m inMemory) Bytes() []byte         { return m }
func (inMemory) Release()                {}
