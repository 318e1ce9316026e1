// Package swarm exchanges the pieces of one image with other machines over
// the BitTorrent protocol: it finds out who has what, asks, verifies, serves.
//
// It moves and verifies bytes; what to do is decided by package exchange, and
// where pieces are kept is the business of the Store it is given. A conn is one
// connection and its goroutines: it parses messages, reads and sends blocks, and
// knows no pieces. The Swarm reports what happens to the exchange and carries out
// its commands. It uses nothing but TCP on the given link: no uTP, no trackers, no
// DHT, no port mapping. The invariant: a piece that reaches the Store has the hash
// that the metainfo demands, and no request and no peer is waited for
// without an end: late pieces are asked of others, silent peers are dropped
// and dialled again.
package swarm

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/internal/exchange"
	"viver.lan/internal/identity"
	"viver.lan/internal/metainfo"
	"viver.lan/internal/placement"
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// Store keeps pieces. Its methods are called from many goroutines.
type Store interface {
	// Put takes verified piece i, given as consecutive parts that must not be
	// kept. An error means that the piece is not held.
	Put(i int, parts [][]byte) error
	// Has reports whether piece i can be opened. The owner asks, too: it must not wait.
	Has(i int) bool
	// Open gives access to a piece for sending it. It may take a while, and
	// less when urgent: somebody waits for the piece. When ctx ends before, it
	// may as well be opened again later.
	Open(ctx context.Context, i int, urgent bool) (Piece, error)
	// Unreadable says that the file of piece i, which Open gave out, cannot be
	// read there, or gives other bytes than Put was given. The caller has released the piece; others may still use it, and
	// wait for the caller.
	Unreadable(i int, err error)
}

// Piece is an open piece. Release is called once.
type Piece interface {
	// File returns the file that holds the piece and the piece's offset in
	// it, or nil when the piece is in memory.
	File() (*os.File, int64)
	// Bytes returns the piece if File returns nil.
	Bytes() []byte
	Release()
}

// Config describes a node's part in a swarm.
type Config struct {
	Info  *metainfo.Info
	Store Store
	// Key is this node's; with the same key after a restart it keeps its role.
	Key identity.Key
	// Listen is the address to accept peers at, on the boot link.
	Listen netip.AddrPort
	// Network, Origin, Budget, Handy and Params are those of exchange.Config. Handy is
	// called by the owner: it must not wait.
	Network netip.Prefix
	Origin  bool
	Budget  int64
	Handy   func(i int) bool
	Params  schedule.Params
	// Machine, when set, names the machine that an address belongs to, "" when
	// that is not known: several addresses of one machine are one copy. It is
	// asked once for each connection.
	Machine func(netip.Addr) string
	// StatusChanged, when set, is called by the owner whenever what the exchange
	// says of itself has changed (exchange.TakeStatusChanged). It must not wait.
	StatusChanged func()
	Log           *slog.Logger
}

// Silence after which a peer is believed dead: one of our nodes says something
// every exchange.KeepAlive, others keep to BEP 3's two minutes.
const (
	silence         = 30 * time.Second
	strangerSilence = 150 * time.Second
)

// ImageOf returns an image in the terms of placement.
func ImageOf(info *metainfo.Info) placement.Image {
	return placement.Image{Pieces: info.NumPieces(), PieceLength: info.PieceLength, Size: info.Size}
}

// Swarm is this node's part in the exchange of one image.
type Swarm struct {
	cfg    Config
	id     wire.PeerID
	log    *slog.Logger
	queued *queuedLog     // the same log, for the owner
	listen netip.AddrPort // as bound
	first  net.Listener   // bound by New, used by Run
	start  time.Time
	lobby  lobby     // of those that have not shaken hands yet
	blocks sync.Pool // *[]byte of wire.BlockSize
	wholes sync.Pool // *[]byte of the piece length

	ctx    context.Context // of all goroutines but the owner, which outlives them
	cancel context.CancelFunc
	group  *errgroup.Group

	events chan event    // for the owner
	ended  chan struct{} // the owner's end

	// The owner's: see own.
	x      *exchange.Exchange
	ownLog *slog.Logger
	conns  map[schedule.Key]*conn
	last   schedule.Key   // of those that connections ever had
	work   exchange.Rates // what addresses have us do beside moving pieces
	wake   *time.Timer
	ending bool // no goroutine begins any more
}

// New binds the listening socket and returns a swarm that holds and wants
// nothing yet. Run has to be called: it ends what New began.
func New(cfg Config) (*Swarm, error) {
	if cfg.Key.IsZero() {
		return nil, errors.New("join the swarm: this node has no key")
	}
	s := &Swarm{
		cfg: cfg, id: wire.PeerIDOf(cfg.Key.Public()), log: cfg.Log, start: time.Now(),
		events: make(chan event, 64), ended: make(chan struct{}), conns: make(map[schedule.Key]*conn),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.blocks.New = func() any { b := make([]byte, wire.BlockSize); return &b }
	s.wholes.New = func() any { b := make([]byte, cfg.Info.PieceLength); return &b }
	ln, err := s.bind(context.Background())
	if err != nil {
		return nil, err
	}
	s.first = ln
	s.listen = ln.Addr().(*net.TCPAddr).AddrPort()
	var seed [32]byte
	_, _ = rand.Read(seed[:]) // never fails
	s.x = exchange.New(exchange.Config{
		Image: ImageOf(cfg.Info), Key: cfg.Key.Public(), Listen: s.listen, Network: cfg.Network, Subnets: ownSubnets(cfg.Network, s.listen.Addr()),
		Origin: cfg.Origin, Budget: cfg.Budget, Handy: cfg.Handy, Params: cfg.Params, Seed: seed,
		Unsent: func(k schedule.Key) bool { return s.conns[k].unsent() },
	})
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.group, s.ctx = errgroup.WithContext(ctx)
	s.wake = time.AfterFunc(time.Hour, func() { s.Do((*exchange.Exchange).Wake) })
	s.queued = newQueuedLog(s.log)
	s.ownLog = slog.New(s.queued)
	go s.own()
	return s, nil
}

// Addr returns the address that peers are accepted at.
func (s *Swarm) Addr() netip.AddrPort { return s.listen }

// now is the time as the exchange counts it.
func (s *Swarm) now() time.Duration { return time.Since(s.start) }

// Run exchanges pieces until ctx ends. It returns nil then. Call it once; what is
// asked of the swarm afterwards comes to nothing.
func (s *Swarm) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, s.cancel)()
	s.group.Go(s.tickLoop)
	s.group.Go(func() error { return s.accept(s.ctx) })
	s.group.Go(func() error { return s.serveUTP(s.ctx) })
	<-s.ctx.Done()
	s.Do(func(*exchange.Exchange) { s.ending = true })
	err := s.group.Wait()
	s.wake.Stop()
	s.events <- event{}
	<-s.ended
	s.queued.end()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
