// Package swarm exchanges the pieces of one image with other machines over
// the BitTorrent protocol: it finds out who has what, asks, verifies, serves.
//
// It moves and verifies bytes; what to ask of whom is decided by package
// schedule, and where pieces are kept is the business of the Store it is
// given. It uses nothing but TCP on the given link: no uTP, no trackers, no
// DHT, no port mapping. The invariant: a piece that reaches the Store has the hash
// that the metainfo demands, and no request and no peer is waited for
// without an end: late pieces are asked of others, silent peers are dropped
// and dialled again.
package swarm

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"viver.lan/internal/identity"
	"viver.lan/internal/metainfo"
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
	// Params tune the scheduler.
	Params schedule.Params
	Log    *slog.Logger
}

const (
	maxPeers = 200
	// A node that knows of more addresses than meshContacts dials until it has
	// enoughPeers. If all dialled until they are full, those who come later
	// would find no room anywhere; and an uplink that many share takes long
	// for each.
	meshContacts = 100
	enoughPeers  = 40
	maxContacts  = 1000
	tickEvery    = 100 * time.Millisecond
	// keepAlive is how often our nodes say that they live, silence after how
	// long they are believed dead. Others keep to BEP 3's two minutes.
	keepAlive       = 5 * time.Second
	silence         = 30 * time.Second
	strangerSilence = 150 * time.Second
	// stallLimit is how long a peer may owe data in silence before it is
	// dropped, to be dialled again.
	stallLimit = 30 * time.Second
)

// Swarm is this node's part in the exchange of one image.
type Swarm struct {
	cfg    Config
	id     wire.PeerID
	log    *slog.Logger
	listen netip.AddrPort // as bound
	first  net.Listener   // bound by New, used by Run
	// subnets are where peers may be that others tell of.
	subnets []netip.Prefix
	start   time.Time
	dial    chan struct{} // wakes the dialler
	flush   *time.Timer   // for messages that wait for company
	lobby   lobby         // of those that have not shaken hands yet
	blocks  sync.Pool     // *[]byte of wire.BlockSize
	wholes  sync.Pool     // *[]byte of the piece length

	mu       sync.Mutex
	table    *schedule.Table
	peers    map[schedule.Key]*peer
	nextKey  schedule.Key
	contacts map[netip.AddrPort]*contact
	tasks    map[int]*task
	failed   map[int]*failure
	paused   map[int]time.Duration // pieces the store refused, until when
	demanded map[int]bool
	gifts    schedule.Gifts // of an origin
	flushAt  time.Duration  // when flush fires, 0 when it is not set
	banned   map[sender]time.Duration
	strikes  map[sender]int
	// toldOrigin: AddPeer named a first node, so nobody else is taken for it.
	toldOrigin bool
	// distrusted are addresses from where somebody came who gave nothing; until
	// then who comes from there is asked for one piece first.
	distrusted map[netip.Addr]time.Duration
	telling    *rate.Limiter                // of the log's lines about peers
	hearsay    *rate.Limiter                // of dialling what others told of
	takers     map[netip.Addr]*rate.Limiter // bytes sent to an address, against what it may need
	takings    []schedule.Taking            // of mayTake
	// lastHeard is when the last of the peers that are lost was heard from.
	lastHeard time.Duration
	stats     Stats
	copies    copyProofs
	group     *errgroup.Group // nil unless Run runs
	ownedLate bool            // findOwned is due,
	ownedNext time.Duration   // not before
}

// Stats counts bytes of payload.
type Stats struct {
	FromOrigin, FromPeers, Sent uint64
	// Wasted is what arrived although it was here already.
	Wasted uint64
	// Failed counts pieces that did not have the right hash.
	Failed uint64
}

// New binds the listening socket and returns a swarm that holds and wants
// nothing yet.
func New(cfg Config) (*Swarm, error) {
	if cfg.Key.IsZero() {
		return nil, errors.New("join the swarm: this node has no key")
	}
	seed := fnv.New64a()
	seed.Write([]byte(cfg.Key.ID()))
	s := &Swarm{
		cfg: cfg, id: wire.PeerIDOf(cfg.Key.Public()), log: cfg.Log, start: time.Now(),
		table:      schedule.NewTable(cfg.Info.NumPieces(), seed.Sum64(), cfg.Params),
		dial:       make(chan struct{}, 1),
		flush:      time.NewTimer(time.Hour),
		peers:      make(map[schedule.Key]*peer),
		contacts:   make(map[netip.AddrPort]*contact),
		tasks:      make(map[int]*task),
		failed:     make(map[int]*failure),
		paused:     make(map[int]time.Duration),
		demanded:   make(map[int]bool),
		banned:     make(map[sender]time.Duration),
		strikes:    make(map[sender]int),
		distrusted: make(map[netip.Addr]time.Duration),
		telling:    rate.NewLimiter(tellPerSecond, tellAtOnce),
		hearsay:    rate.NewLimiter(hearsayPerSecond, hearsayAtOnce),
		takers:     make(map[netip.Addr]*rate.Limiter),
		copies:     newCopyProofs(cfg.Info.PieceLength),
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.blocks.New = func() any { b := make([]byte, wire.BlockSize); return &b }
	s.wholes.New = func() any { b := make([]byte, cfg.Info.PieceLength); return &b }
	s.setOwned()
	ln, err := s.bind(context.Background())
	if err != nil {
		return nil, err
	}
	s.first = ln
	s.listen = ln.Addr().(*net.TCPAddr).AddrPort()
	s.subnets = ownSubnets(cfg.Network, s.listen.Addr())
	return s, nil
}

// Addr returns the address that peers are accepted at.
func (s *Swarm) Addr() netip.AddrPort { return s.listen }

// now is the time as the scheduler counts it.
func (s *Swarm) now() time.Duration { return time.Since(s.start) }

// Run exchanges pieces until ctx ends. It returns nil then. Call it once.
func (s *Swarm) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	s.mu.Lock()
	s.group = group
	s.mu.Unlock()
	group.Go(func() error { return s.accept(ctx) })
	group.Go(func() error { return s.dialLoop(ctx) })
	group.Go(func() error { return s.tickLoop(ctx) })
	group.Go(func() error { return s.serveUTP(ctx) })
	group.Go(func() error { return s.answerLoop(ctx) })
	group.Go(func() error { return s.checkLoop(ctx) })
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (s *Swarm) tickLoop(ctx context.Context) error {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.flush.C:
			s.mu.Lock()
			s.flushOut()
			s.mu.Unlock()
			continue
		case <-t.C:
		}
		s.mu.Lock()
		s.tick()
		if n%50 == 10 {
			s.sendPex()
		}
		if n%10 == 5 && s.ownedLate {
			s.findOwned()
		}
		s.mu.Unlock()
		n++
	}
}

// tick looks after what is late, silent or free to be asked for again.
func (s *Swarm) tick() {
	now := s.now()
	for i, until := range s.paused {
		if now >= until {
			delete(s.paused, i)
			s.table.Want(i, true)
		}
	}
	for k, p := range s.peers {
		s.table.Progress(k, time.Duration(p.lastData.Load()))
		if trusted := s.table.Trusted(k); trusted == p.distrusted {
			p.distrusted = !trusted
			s.setOwned()
			s.sayDistrust(p)
		}
		if !p.ready && now-p.since > 2*time.Second {
			s.setReady(p) // it promised an extension handshake or a proof and sent none
		}
	}
	if len(s.tasks) > 0 {
		for k, quiet := range s.table.Stalls(now) {
			if quiet > stallLimit {
				s.peers[k].close(fmt.Errorf("owes data and is silent since %v", quiet.Round(time.Second)))
			}
		}
		for _, i := range s.table.Late(now) {
			s.seek(i, s.demanded[i])
		}
	}
	for i := range s.demanded {
		if asked, _ := s.table.Asked(i); len(asked) == 0 {
			s.seek(i, true)
		}
	}
	s.fillAll()
	s.nextTurns()
	s.prove(now)
}

// Peers that come and go may have tellAtOnce lines in the log, and tellPerSecond
// from then on.
const (
	tellAtOnce    = 400
	tellPerSecond = 1
)

// tell logs what peers did; what is beyond a bounded rate, for those who debug
// only.
func (s *Swarm) tell(msg string, args ...any) {
	level := slog.LevelInfo
	if !s.telling.AllowN(clock(s.now()), 1) {
		level = slog.LevelDebug
	}
	s.log.Log(context.Background(), level, msg, args...)
}

// sayDistrust logs that p lost its standing: once, and again only when it has
// given something since.
func (s *Swarm) sayDistrust(p *peer) {
	given := s.table.Given(p.key)
	if !p.distrusted || p.distrustSaid > given {
		return
	}
	p.distrustSaid = given + 1
	silent := s.now() - time.Duration(p.lastHeard.Load())
	s.tell("peer gives nothing, others are asked", "peer", p.name, "given", given, "stalled", s.table.Stalled(p.key), "silent", silent.Round(100*time.Millisecond))
}

// fillAll asks every peer for as much as it may owe us.
func (s *Swarm) fillAll() {
	if s.table.Complete() {
		return
	}
	for _, p := range s.peers { // the map's random order is fair
		s.fill(p)
	}
}

func (s *Swarm) fill(p *peer) {
	if !p.ready || p.closing || p.kind == schedule.Origin && s.proving(p) {
		return
	}
	if !p.interested && s.table.Interesting(p.key) {
		p.interested = true
		p.say(wire.AppendPlain(nil, wire.Interested))
	}
	for {
		i, ok := s.table.Next(p.key, s.now())
		if !ok {
			return
		}
		s.request(p, i)
	}
}

// seek asks the best peer for piece i now, if there is one.
func (s *Swarm) seek(i int, urgent bool) {
	if k, ok := s.table.Source(i, s.now(), urgent); ok {
		s.request(s.peers[k], i)
	}
}

// Want says whether the pieces from lo up to hi shall be fetched when there
// is nothing better to do.
func (s *Swarm) Want(lo, hi int, want bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := max(lo, 0); i < min(hi, s.cfg.Info.NumPieces()); i++ {
		s.table.Want(i, want)
		delete(s.paused, i)
	}
	s.fillAll()
}

// Demand says whether somebody waits for piece i: it is asked for at once and
// before all others.
func (s *Swarm) Demand(i int, demand bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table.Demand(i, demand)
	if !demand {
		delete(s.demanded, i)
		return
	}
	s.demanded[i] = true
	asked, _ := s.table.Asked(i)
	for _, k := range asked {
		s.hint(s.peers[k], i)
	}
	if len(asked) == 0 {
		s.seek(i, true)
	}
}

// SetPlayhead tells at which piece this node reads.
func (s *Swarm) SetPlayhead(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.table.SetPlayhead(i)
}

// Gained says that the store holds piece i although the swarm did not bring
// it; peers are told.
func (s *Swarm) Gained(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.table.Held().Has(i) && s.cfg.Store.Has(i) {
		s.table.SetHeld(i, true)
		s.announce(i)
	}
}

// Lost says that the store no longer holds piece i; peers are told (BEP 54).
func (s *Swarm) Lost(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.table.Held().Has(i) || s.cfg.Store.Has(i) {
		return
	}
	s.table.SetHeld(i, false)
	for _, p := range s.peers {
		if p.hello.M.DontHave != 0 {
			p.say(wire.AppendPieceHint(nil, p.hello.M.DontHave, i))
		}
	}
}

// announce tells all peers that piece i can be had here, some of them a
// little later.
func (s *Swarm) announce(i int) {
	complete := s.table.Complete()
	for k, p := range s.peers {
		have := wire.AppendIndex(nil, wire.Have, i)
		if delay := s.table.HaveDelay(k, i); delay > 0 {
			p.queueOut(have)
			s.flushWithin(delay)
		} else {
			p.say(have)
		}
		// libtorrent that had requests rejected and now has none left does not
		// ask on a Have, only when it is told that it may.
		if p.refused && len(p.queue)+p.taken == 0 {
			p.say(wire.AppendPlain(nil, wire.Unchoke))
		}
		if complete && p.interested {
			p.interested = false
			p.say(wire.AppendPlain(nil, wire.NotInterested))
		}
	}
}

// flushWithin has what is queued for peers written after delay at the latest.
func (s *Swarm) flushWithin(delay time.Duration) {
	if at := s.now() + delay; s.flushAt == 0 || at < s.flushAt {
		s.flushAt = at
		s.flush.Reset(delay)
	}
}

// flushOut has what is queued for peers written.
func (s *Swarm) flushOut() {
	s.flushAt = 0
	if s.ownedLate && !s.muchOwned() {
		s.setOwned()
	}
	for _, p := range s.peers {
		if len(p.out) > 0 {
			wake(p.wakeWriter)
		}
	}
}
