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
	// Record, when set, takes the boot records of peers (AskRecords), as they came. It
	// must not wait.
	Record func(record []byte)
	// Params tune the scheduler; the zero value is right.
	Params schedule.Params
	// Changed, when set, is called whenever Status may return something else, beside
	// ages; from any goroutine and as often as pieces come. It must not wait.
	Changed func()
	Log     *slog.Logger
	Events  *event.Log
}

// Timing of what is reported, not of what is decided.
const (
	waitReport   = 5 * time.Second  // a read older than that is reported,
	waitAgain    = 10 * time.Second // and again after that
	reportEvery  = time.Second
	transferEach = 2 * time.Second
)

const placeEvery = time.Second // it is worked out what this node shall pin

// source is where bytes of pieces come from. A volume asks three, in this order: the
// store, on the first node the medium, and the swarm.
type source interface {
	// Read fills p with the verified bytes of piece i from off on. It waits until
	// the source has them or knows that it will not; then the next one is asked.
	Read(ctx context.Context, i int, p []byte, off int) error
}

// Volume is the disk. It is safe for concurrent use. It joins its parts: none of
// them calls it, and of each other they know the store and the swarm only.
type Volume struct {
	cfg      Config
	info     *metainfo.Info
	log      *slog.Logger
	store    *store
	medium   *medium // nil without one
	swarm    *swarm.Swarm
	waiting  *waiting
	sources  []source
	ahead    readAhead
	replicas *replicas
	// demandOnly: see DemandOnly.
	demandOnly atomic.Bool
}

// New returns a volume that listens for peers; Run lets it work.
func New(cfg Config) (*Volume, error) {
	v := &Volume{cfg: cfg, info: cfg.Info, log: cfg.Log}
	if v.log == nil {
		v.log = slog.New(slog.DiscardHandler)
	}
	if v.cfg.Changed == nil {
		v.cfg.Changed = func() {}
	}
	v.store = &store{Store: cfg.Store, info: v.info, fallback: cfg.Fallback, log: v.log, budget: cfg.Store.Budget()}
	v.replicas = newReplicas(v.cfg, v.store)
	v.sources = []source{v.store}
	if cfg.Medium != nil {
		v.medium = newMedium(cfg.Medium, v.info, v.log)
		v.sources = append(v.sources, v.medium)
	}
	var err error
	v.swarm, err = swarm.New(swarm.Config{
		Info: v.info, Store: pieces{v}, Key: cfg.Key, Listen: cfg.Listen, Network: cfg.Network, Machine: cfg.Machine,
		Handy: v.isHandy, Origin: v.replicas.first, Budget: v.store.Budget(), Params: cfg.Params,
		StatusChanged: v.cfg.Changed, Record: cfg.Record, Log: v.log,
	})
	if err != nil {
		return nil, fmt.Errorf("volume: %w", err)
	}
	v.store.swarm = v.swarm
	v.waiting = &waiting{swarm: v.swarm, store: cfg.Store, log: v.log, changed: v.cfg.Changed, waits: make(map[int]*wait)}
	v.sources = append(v.sources, v.waiting)
	return v, nil
}

// Size of the payload in bytes.
func (v *Volume) Size() int64 { return v.info.Size }

// Addr returns the address that peers are accepted at.
func (v *Volume) Addr() netip.AddrPort { return v.swarm.Addr() }

// SetNodes says how many nodes the network has, this one included and the first
// node not. A node of a large network is connected to a part of it only.
func (v *Volume) SetNodes(n int) { v.replicas.nodes.Store(int64(n)) }

// AddPeer names a node of the network. origin says that it is the first node.
func (v *Volume) AddPeer(addr netip.AddrPort, origin bool) {
	v.swarm.Do(func(x *exchange.Exchange) { x.AddPeer(addr, origin) })
}

// RemovePeer says that the node at addr is believed gone; a connection to it
// that lives goes on.
func (v *Volume) RemovePeer(addr netip.AddrPort) {
	v.swarm.Do(func(x *exchange.Exchange) { x.RemovePeer(addr) })
}

// Run works until ctx ends and returns nil then. Call it once. Pieces that are in the store
// already are not fetched; those that an earlier run left there are hashed.
func (v *Volume) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if v.medium != nil {
		v.onMediumChange(0, v.info.NumPieces()) // read and verified when somebody asks
		g.Go(func() error { return v.readMedium(ctx) })
	}
	g.Go(func() error { return v.swarm.Run(ctx) })
	g.Go(func() error { return v.runPlacement(ctx) })
	g.Go(func() error { return v.report(ctx) })
	err := g.Wait()
	if ctx.Err() != nil && (err == nil || errors.Is(err, context.Canceled)) {
		return nil
	}
	return err
}

// runPlacement keeps this node's part of the image pinned, and what it lacks of that
// fetched, as nodes come and go.
func (v *Volume) runPlacement(ctx context.Context) error {
	for _, i := range v.store.Held() { // what somebody put there before this volume was made
		v.swarm.Changed(i)
	}
	if err := v.store.rehashAll(ctx); err != nil {
		return err
	}
	v.replicas.keepFound()
	t := time.NewTicker(placeEvery)
	defer t.Stop()
	for begin := time.Now(); ; {
		if err := v.store.check(ctx); err != nil {
			return err
		}
		doubts := v.replicas.update(time.Since(begin), v.neighbours(), v.has)
		v.swarm.Do(func(x *exchange.Exchange) { x.Doubt(doubts) })
		v.updateWanted(0, v.info.NumPieces())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}

// updateWanted tells the swarm which of the pieces from lo up to hi to fetch though
// nobody waits for them.
func (v *Volume) updateWanted(lo, hi int) {
	v.swarm.Do(func(x *exchange.Exchange) { x.Want(lo, hi, v.wants()) })
}

// wants returns which pieces to fetch now though nobody waits for them. One that an
// earlier run left in the store is hashed first, by runPlacement or by who reads it: only
// if it is wrong then, it is fetched.
func (v *Volume) wants() func(i int) bool {
	all, demandOnly := v.store.fitsAll(), v.demandOnly.Load()
	return func(i int) bool {
		if v.medium != nil && v.medium.has(i) {
			return false
		}
		wanted := v.ahead.covers(i) || !demandOnly && (all || v.replicas.wants(i))
		return wanted && !v.store.Candidate(i)
	}
}

// DemandOnly says whether nothing is fetched, or read ahead from the medium, but what
// is read here, what a peer asks for, and what is about to be read here: on a machine
// that boots all else takes time from that.
func (v *Volume) DemandOnly(on bool) {
	if v.demandOnly.Swap(on) == on {
		return
	}
	if v.medium != nil && !on {
		v.medium.readOn()
	}
	v.updateWanted(0, v.info.NumPieces())
}

// Expect names the pieces that are thought to be read here, in that order: those next
// in it are fetched ahead of the reader. It replaces what was expected before.
func (v *Volume) Expect(order []int) {
	v.ahead.expected.Store(newExpected(order))
	v.updateWanted(0, v.info.NumPieces())
}

// Waits reports whether a read waits for a piece.
func (v *Volume) Waits() bool { return v.waiting.any() }

// SetRecord sets the boot record that peers get who ask for it.
func (v *Volume) SetRecord(record []byte) {
	v.swarm.Do(func(x *exchange.Exchange) { x.SetRecord(record) })
}

// AskRecords has so many nodes asked for their boot records, which Config.Record takes.
func (v *Volume) AskRecords(n int) { v.swarm.Do(func(x *exchange.Exchange) { x.AskRecords(n) }) }

func (v *Volume) neighbours() []exchange.Neighbour {
	return swarm.Ask(v.swarm, (*exchange.Exchange).Neighbours)
}

// readMedium reads the medium. A piece is stored before those who asked for it are
// told, so that the medium can be read again when they ask for the next one.
func (v *Volume) readMedium(ctx context.Context) error {
	for ctx.Err() == nil {
		r := v.medium.next(func(i int) bool { return !v.demandOnly.Load() && v.store.hasRoom(i) })
		if r == nil {
			if v.medium.await(ctx) {
				v.onMediumChange(0, v.info.NumPieces())
			}
			continue
		}
		if v.medium.isAsked(r) { // what is only on the way of the disc is read
			if data := v.stored(r.piece); data != nil {
				v.medium.answer(r, data)
				continue
			}
		}
		data, err := v.medium.fetch(ctx, r.piece)
		if requested := v.medium.answered(r); err == nil && (requested || v.store.hasRoom(r.piece)) {
			if err := v.storePiece(r.piece, data); err != nil && !errors.Is(err, piecestore.ErrFull) {
				v.log.Warn("piece of the medium not kept in memory", "piece", r.piece, "error", err)
			}
		}
		if lo, hi := v.medium.finish(r, data, err); lo < hi {
			v.onMediumChange(lo, hi)
		}
		v.cfg.Changed()
	}
	return ctx.Err()
}

// stored returns piece i if the store has it, else nil. Who finds a piece missing there
// may ask the medium for it only when it has come and a few more have been read.
func (v *Volume) stored(i int) []byte {
	if !v.store.Has(i) {
		return nil
	}
	data := make([]byte, v.info.PieceSize(i))
	if v.store.Read(context.Background(), i, data, 0) != nil {
		return nil
	}
	return data
}

// onMediumChange acts on pieces from lo up to hi that came or went with the medium:
// peers are told, what it lacks is wanted from them, and what somebody waits for is
// read; storePiece brings it to the readers.
func (v *Volume) onMediumChange(lo, hi int) {
	v.updateWanted(lo, hi)
	for i := lo; i < hi; i++ {
		v.swarm.Changed(i)
		if v.waiting.has(i) {
			v.medium.request(i, true)
		}
	}
}

// storePiece hands a verified piece to those who wait and puts it into the store.
// Whoever waits gets the bytes even if the store has no room.
func (v *Volume) storePiece(i int, parts ...[]byte) error {
	v.waiting.deliver(i, parts)
	err := v.store.put(i, parts...)
	v.waiting.deliver(i, parts) // to those who began to wait meanwhile
	return err
}

// has reports whether this node can give piece i.
func (v *Volume) has(i int) bool { return v.store.Has(i) || v.medium != nil && v.medium.has(i) }

// isHandy reports whether piece i can be had without a slow medium that others need.
func (v *Volume) isHandy(i int) bool {
	return v.store.Has(i) || v.medium == nil || v.medium.isIdle()
}

// pieces is the volume as the swarm sees it.
type pieces struct{ v *Volume }

// Put implements swarm.Store.
func (p pieces) Put(i int, parts [][]byte) error { return p.v.storePiece(i, parts...) }

// Has implements swarm.Store.
func (p pieces) Has(i int) bool { return p.v.has(i) }

// Open implements swarm.Store.
func (p pieces) Open(ctx context.Context, i int, urgent bool) (swarm.Piece, error) {
	piece, err := p.v.store.open(i)
	if err != nil && p.v.medium != nil {
		return p.v.medium.open(ctx, i, urgent)
	}
	return piece, err
}

// Unreadable implements swarm.Store.
func (p pieces) Unreadable(i int, err error) { p.v.store.onUnreadable(i, err) }
