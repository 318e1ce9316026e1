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

	"viver.lan/internal/copies"
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
	// Has reports whether piece i can be opened.
	Has(i int) bool
	// Open gives access to a piece for sending it. It may take a while, and
	// less when urgent: somebody waits for the piece. When ctx ends before, it
	// may as well be opened again later.
	Open(ctx context.Context, i int, urgent bool) (Piece, error)
	// Unreadable says that the file of piece i, which Open gave out, cannot be
	// read there.
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
	// Network, when valid, is the only address range that peers may have.
	Network netip.Prefix
	// Origin says that this is the first node.
	Origin bool
	// Budget is how many bytes of pieces this node keeps; peers are told.
	Budget int64
	// Machine, when set, names the machine that an address belongs to, "" when
	// that is not known: several addresses of one machine are one copy. It is
	// asked once for each connection.
	Machine func(netip.Addr) string
	// Handy, when set, reports whether a piece that the Store has can be opened
	// without a slow medium that others need: only such pieces are asked about.
	Handy func(i int) bool
	// Params tune the scheduler.
	Params schedule.Params
	Log    *slog.Logger
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
	listen netip.AddrPort // as bound
	first  net.Listener   // bound by New, used by Run
	start  time.Time
	flush  *time.Timer // when messages that wait for company are sent
	lobby  lobby       // of those that have not shaken hands yet
	blocks sync.Pool   // *[]byte of wire.BlockSize
	wholes sync.Pool   // *[]byte of the piece length
	group  *errgroup.Group

	wakeDialler, wakeAnswer, wakeCheck chan struct{}

	calls       chan *call
	stop, ended chan struct{} // of the owner

	// The owner's: see own.
	x       *exchange.Exchange
	conns   map[schedule.Key]*conn
	dials   []netip.AddrPort // for the dialler
	flushAt time.Duration    // when flush fires, 0 when it is not set
}

// New binds the listening socket and returns a swarm that holds and wants
// nothing yet. Run has to be called: it ends what New began.
func New(cfg Config) (*Swarm, error) {
	if cfg.Key.IsZero() {
		return nil, errors.New("join the swarm: this node has no key")
	}
	s := &Swarm{
		cfg: cfg, id: wire.PeerIDOf(cfg.Key.Public()), log: cfg.Log, start: time.Now(), flush: time.NewTimer(time.Hour),
		wakeDialler: make(chan struct{}, 1), wakeAnswer: make(chan struct{}, 1), wakeCheck: make(chan struct{}, 1),
		calls: make(chan *call, 64), stop: make(chan struct{}), ended: make(chan struct{}), conns: make(map[schedule.Key]*conn),
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
	group, ctx := errgroup.WithContext(ctx)
	s.group = group
	group.Go(func() error { return s.accept(ctx) })
	group.Go(func() error { return s.dialLoop(ctx) })
	group.Go(func() error { return s.serveUTP(ctx) })
	group.Go(func() error { return s.answerLoop(ctx) })
	group.Go(func() error { return s.checkLoop(ctx) })
	err := group.Wait()
	close(s.stop)
	<-s.ended
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (s *Swarm) carryOut(c exchange.Command) {
	switch c := c.(type) {
	case exchange.Send:
		s.conns[c.To].say(c.Message, c.Later)
	case exchange.Announce:
		for _, k := range c.To {
			s.conns[k].say(wire.Message{Type: wire.Have, Block: wire.Block{Piece: c.Piece}}, c.Later)
		}
	case exchange.SendAll:
		for _, to := range s.conns {
			to.sayAll()
		}
	case exchange.Close:
		s.conns[c.To].close()
	case exchange.Charge:
		s.conns[c.To].charge(c.Work)
	case exchange.Offer:
		s.conns[c.To].offer()
	case exchange.Interrupt:
		s.conns[c.To].interruptOpening()
	case exchange.Free:
		s.free(c.Buffer)
	case exchange.Dial:
		s.dials = append(s.dials, c.To)
		wake(s.wakeDialler)
	case exchange.Answers:
		wake(s.wakeAnswer)
	case exchange.Checks:
		wake(s.wakeCheck)
	}
}

func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// AddPeer names a peer. It is dialled until it answers, again after it was
// lost, and never given up.
func (s *Swarm) AddPeer(addr netip.AddrPort, origin bool) {
	s.do(func(x *exchange.Exchange) { x.AddPeer(addr, origin) })
}

// RemovePeer says that a peer is believed gone. That is hearsay: a connection
// to it that lives goes on, and its address is forgotten only when nobody
// answers there.
func (s *Swarm) RemovePeer(addr netip.AddrPort) {
	s.do(func(x *exchange.Exchange) { x.RemovePeer(addr) })
}

// SetWanted says which of the pieces from lo up to hi shall be fetched when
// there is nothing better to do.
func (s *Swarm) SetWanted(lo, hi int, want func(i int) bool) {
	s.do(func(x *exchange.Exchange) { x.SetWanted(lo, hi, want) })
}

// Demand says that a read has begun or ceased to wait for piece i: while one does, the
// piece is asked for at once and before all others. waited tells which, since news of
// two reads may come in the wrong order; it is called at once and must not block.
func (s *Swarm) Demand(i int, waited func(i int) bool) {
	s.do(func(x *exchange.Exchange) { x.Demand(i, waited(i)) })
}

// SetPlayhead tells at which piece this node reads.
func (s *Swarm) SetPlayhead(i int) { s.do(func(x *exchange.Exchange) { x.SetPlayhead(i) }) }

// SetBudget tells the peers how many bytes of pieces this node keeps now.
func (s *Swarm) SetBudget(budget int64) {
	s.do(func(x *exchange.Exchange) { x.SetBudget(budget) })
}

// Doubt replaces the claims on which something hangs for this node; those that
// come first are to be proved first.
func (s *Swarm) Doubt(doubts []copies.Doubt) {
	s.do(func(x *exchange.Exchange) { x.Doubt(doubts) })
}

// Changed says that pieces from lo up to hi came into the store, though the swarm did
// not bring them, or are no longer there; peers are told (BEP 54). The store is asked
// which: news of two changes may come in the wrong order.
func (s *Swarm) Changed(lo, hi int) {
	for i := lo; i < hi; i++ {
		s.do(func(x *exchange.Exchange) {
			if s.cfg.Store.Has(i) {
				x.Gained(i)
			} else {
				x.Lost(i)
			}
		})
	}
}

// ask has the owner ask the exchange for something.
func ask[T any](s *Swarm, f func(x *exchange.Exchange) T) (out T) {
	s.do(func(x *exchange.Exchange) { out = f(x) })
	return out
}

// Neighbours returns the peers that were heard from lately, in no order.
func (s *Swarm) Neighbours() []exchange.Neighbour { return ask(s, (*exchange.Exchange).Neighbours) }

// Status returns the peers that have introduced themselves, in the order of their
// addresses, and the counts.
func (s *Swarm) Status() (peers []exchange.PeerStatus, stats exchange.Stats) {
	s.do(func(x *exchange.Exchange) { peers, stats = x.Status() })
	return peers, stats
}

// Prospect tells how things stand with piece i.
func (s *Swarm) Prospect(i int) exchange.Prospect {
	return ask(s, func(x *exchange.Exchange) exchange.Prospect { return x.Prospect(i) })
}

// OutOfReach returns how many pieces neither this node nor any live peer has,
// and whether the first node is among those.
func (s *Swarm) OutOfReach() (pieces int, origin bool) {
	s.do(func(x *exchange.Exchange) { pieces, origin = x.OutOfReach() })
	return pieces, origin
}

// ProofFailures lists the last of those who did not prove what they claim and
// have not done so since.
func (s *Swarm) ProofFailures() []exchange.ProofFailure {
	return ask(s, (*exchange.Exchange).ProofFailures)
}

// ProofStats returns what proofs have cost.
func (s *Swarm) ProofStats() exchange.ProofStats { return ask(s, (*exchange.Exchange).ProofStats) }
