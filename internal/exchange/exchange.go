// Package exchange decides what one node does in a swarm: what is asked of which
// peer, which piece is put together from whose blocks, who is to blame for wrong
// bytes, who is sent something next, who has to prove its copies, which addresses
// are dialled, and who has a place here.
//
// It is pure and deterministic. It owns no clock, no socket, no lock, no goroutine
// and no byte of a piece: the same configuration and the same events at the same
// times give the same commands. One goroutine owns an Exchange. For each event that
// goroutine says what time it is (SetTime), calls the event's method (Connected,
// Messages, BlockArrived, Verified, Tick, Demand and so on), and then takes the
// commands and carries them out (Commands). It waits for none of them: who hashes,
// stores, reads or writes does so elsewhere and reports an event when it is done.
// Package swarm does that with connections and a store, package sim with links that
// are arithmetic.
//
// The bytes of a block never pass through the owner. A connection's reader reads and
// hashes a block, reports BlockArrived, and verifies and stores the piece if that
// made it complete, while the bytes are in its processor's cache: so a slow store
// holds back the sender. Messages that arrive together are reported together.
// Uploads are pulled: a connection asks for its next block (NextUpload) while the
// last one is being sent, so that the owner is never waited for between two blocks
// on the wire.
//
// Invariants: a piece is held only after Verified said that it has its hash; what
// is asked of a peer is asked until it came, was rejected or withdrawn; no peer and
// no address is remembered without a bound, but for those that AddPeer names.
package exchange

import (
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"time"

	"golang.org/x/time/rate"

	"viver.lan/internal/identity"
	"viver.lan/internal/placement"
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// Config describes a node's part in a swarm.
type Config struct {
	Image placement.Image
	// Key is this node's public key.
	Key identity.Public
	// Listen is where this node accepts peers.
	Listen netip.AddrPort
	// Network, when valid, is the only address range that peers may have.
	Network netip.Prefix
	// Subnets are where addresses from other peers may be (BEP 11).
	Subnets []netip.Prefix
	// Origin is true for the first node.
	Origin bool
	// Budget is how many bytes of pieces this node keeps; peers are told.
	Budget int64
	// Handy, when set, reports whether a piece that is held can be opened without
	// a slow medium that others need: only such pieces are asked about, and read
	// to check the answer.
	Handy func(i int) bool
	// Unsent, when set, reports whether something that went to a peer has not left
	// this machine yet.
	Unsent func(k schedule.Key) bool
	// Params tune the scheduler.
	Params schedule.Params
	// Seed of the questions about copies. Nobody must be able to guess it.
	Seed [32]byte
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
	// TickEvery is how often Tick is to be called.
	TickEvery = 100 * time.Millisecond
	// KeepAlive is how often our nodes send something, an empty message if nothing else.
	KeepAlive = 5 * time.Second
	// stallLimit is how long a peer that owes data may be silent before it is
	// dropped, to be dialled again.
	stallLimit = 30 * time.Second
	// maxHosts bounds the addresses of which something is remembered.
	maxHosts = 1024
)

// Exchange is what one node knows of a swarm.
type Exchange struct {
	cfg  Config
	id   identity.ID
	name wire.PeerID
	rng  *rand.Rand
	now  time.Duration
	out  []Command
	gone []Command // those taken last, to be used again

	table    *schedule.Table
	peers    []*peer // in order of arrival
	byKey    map[schedule.Key]*peer
	contacts contacts
	tasks    map[int]*task
	paused   map[int]time.Duration // pieces the store refused, until when
	blame    blame
	seeding  schedule.SuperSeeder // of an origin
	wakeAt   time.Duration        // when Wake is due, 0 when it is not
	ticks    int
	// originNamed: AddPeer named a first node, so nobody else is taken for it.
	originNamed bool
	logging     *rate.Limiter     // of the log's lines about peers
	takers      Rates             // bytes sent to an address, against what it may need
	takings     []schedule.Taking // of mayTake
	// lastHeard is when the last of the peers that are lost was heard from.
	lastHeard time.Duration
	stats     Stats
	changed   bool // see TakeStatusChanged
	copies    copyProofs
	records   records
	owned     bool          // it is known which pieces this node owns
	ownedNext time.Duration // not to be found before
}

// Command is something for the owner of an Exchange to do: one of the types below.
type Command any

type (
	// Send has a message sent to a peer after those before it.
	Send struct {
		To      schedule.Key
		Message wire.Message
	}
	// Announce has the HAVE of a piece sent to peers as well: at once, or, when
	// Later is set, together with the next message.
	Announce struct {
		Piece int
		To    []schedule.Key
		Later bool
	}
	// SendAll has all messages sent that were to be sent later.
	SendAll struct{}
	// WakeAt has Wake called at a time; it is earlier than what was wanted before.
	WakeAt struct{ Time time.Duration }
	// Close ends a connection. Disconnected has to follow.
	Close struct{ To schedule.Key }
	// Offer says that NextUpload may have something for a peer. What is Urgent
	// ends the opening of the piece that it named last, if that goes on yet.
	Offer struct {
		To     schedule.Key
		Urgent bool
	}
	// Dial has an address dialled. DialEnded has to follow.
	Dial struct{ To netip.AddrPort }
	// Log is a line for the log.
	Log struct {
		Level slog.Level
		Text  string
		Args  []any
	}
)

// Verify is a piece whose parts are all here, to be hashed and stored. The buffers
// of its parts are the owner's again.
type Verify struct {
	Piece int
	// Parts of the piece, in order.
	Parts []Part
	// Sum is the SHA-1 of a piece that came as one block, nil of others.
	Sum []byte
	// Digests are wanted of the parts even if the piece is right.
	Digests bool
}

// Part is where a part of a piece lies.
type Part struct {
	Buffer     *[]byte
	Begin, End int // in the buffer
}

// Stats counts bytes of payload, if not said otherwise.
type Stats struct {
	FromOrigin, FromPeers, Sent uint64
	// Wasted is what arrived although it was here already.
	Wasted uint64
	// Failed counts pieces that did not have the right hash.
	Failed uint64
	// Proofs is what proofs of copies cost.
	Proofs ProofStats
}

// New returns the exchange of a node that holds and wants nothing and knows
// nobody.
func New(cfg Config) *Exchange {
	id := cfg.Key.ID()
	seed := fnv.New64a()
	seed.Write(id[:])
	return &Exchange{
		cfg: cfg, id: id, name: wire.PeerIDOf(cfg.Key), rng: rand.New(rand.NewPCG(seed.Sum64(), 0x45584348)),
		table:    schedule.NewTable(cfg.Image.Pieces, seed.Sum64(), cfg.Params),
		byKey:    make(map[schedule.Key]*peer),
		contacts: newContacts(),
		tasks:    make(map[int]*task),
		paused:   make(map[int]time.Duration),
		blame:    newBlame(),
		logging:  rate.NewLimiter(logPerSecond, logAtOnce),
		copies:   newCopyProofs(cfg.Image.PieceLength, cfg.Seed),
	}
}

// SetTime says what time it is, as a duration since any fixed moment.
func (x *Exchange) SetTime(now time.Duration) { x.now = now }

// Commands returns what is to be done, in this order. The slice is valid until the
// next call.
func (x *Exchange) Commands() []Command {
	out := x.out
	clear(x.gone)
	x.out, x.gone = x.gone[:0], out
	return out
}

// TakeStatusChanged reports whether what Status, Neighbours, OutOfReach and the like return has
// changed since it was asked last. Ages change without end; they do not count.
func (x *Exchange) TakeStatusChanged() (changed bool) {
	changed, x.changed = x.changed, false
	return changed
}

func (x *Exchange) do(c Command) { x.out = append(x.out, c) }

// pieceSize is the size of piece i in bytes.
func (x *Exchange) pieceSize(i int) int {
	im := x.cfg.Image
	return int(min(im.PieceLength, im.Size-int64(i)*im.PieceLength))
}

// Tick looks after what is late, silent or free to be asked for again. Progress is
// to be called for each peer before.
func (x *Exchange) Tick() {
	for i, until := range x.paused {
		if x.now >= until {
			delete(x.paused, i)
			x.table.Want(i, true)
		}
	}
	for _, p := range x.peers {
		x.table.Progress(p.key, p.lastData)
		if trusted := x.table.Trusted(p.key); trusted == p.distrusted {
			p.distrusted = !trusted
			x.owned = false
			x.logDistrust(p)
		}
		if state := x.stateOf(p); state != p.state {
			p.state, x.changed = state, true
		}
		if !p.ready && x.now-p.since > 2*time.Second {
			x.setReady(p) // it promised an extension handshake or a proof and sent none
		}
	}
	x.hedge()
	x.seekDemanded()
	x.fillAll()
	x.nextTurns()
	x.prove()
	x.askRecords()
	if x.ticks%50 == 10 {
		x.sendAllPex()
	}
	x.dial()
	x.ticks++
}

// hedge drops peers that owe data and are silent, and requests from others what is
// late.
func (x *Exchange) hedge() {
	if len(x.tasks) == 0 {
		return
	}
	stalls := x.table.Stalls(x.now)
	for _, p := range x.peers {
		if quiet := stalls[p.key]; quiet > stallLimit {
			p.close(fmt.Errorf("owes data, no answer for %v", quiet.Round(time.Second)))
		}
	}
	for _, i := range x.table.Late(x.now) {
		x.seek(i, x.table.Demanded(i))
	}
}

// seekDemanded asks for what somebody waits for and nobody is asked for.
func (x *Exchange) seekDemanded() {
	for _, i := range x.table.Demands() {
		x.seekFirst(i)
	}
}

// seekFirst asks for a piece that somebody waits for, unless somebody is asked.
func (x *Exchange) seekFirst(i int) {
	if len(x.table.Asked(i)) == 0 {
		x.seek(i, true)
	}
}

// Peers that come and go may have logAtOnce lines in the log, and logPerSecond
// from then on.
const (
	logAtOnce    = 400
	logPerSecond = 1
)

// log logs what peers did; what is beyond a bounded rate, for those who debug
// only.
func (x *Exchange) log(msg string, args ...any) {
	level := slog.LevelInfo
	if !x.logging.AllowN(Clock(x.now), 1) {
		level = slog.LevelDebug
	}
	x.do(Log{level, msg, args})
}

func (x *Exchange) warn(msg string, args ...any) { x.do(Log{slog.LevelWarn, msg, args}) }

// logDistrust logs that p lost its standing: once, and again only when it has
// given something since.
func (x *Exchange) logDistrust(p *peer) {
	given := x.table.Given(p.key)
	if !p.distrusted || p.distrustSaid > given {
		return
	}
	p.distrustSaid = given + 1
	silent := x.now - p.lastHeard
	x.log("peer gives nothing, others are asked", "peer", p.name, "given", given, "stalled", x.table.Stalled(p.key), "silent", silent.Round(100*time.Millisecond))
}

// fillAll asks every peer for as much as it may owe us, each as often the first
// one as any other.
func (x *Exchange) fillAll() {
	if x.table.Complete() || len(x.peers) == 0 {
		return
	}
	first := x.rng.IntN(len(x.peers))
	for n := range x.peers {
		x.fill(x.peers[(first+n)%len(x.peers)])
	}
}

func (x *Exchange) fill(p *peer) {
	if !p.ready || p.closing || p.kind == schedule.Origin && x.proving(p) {
		return
	}
	if p.kind == schedule.Origin && !x.owned && x.now >= x.ownedNext {
		x.findOwned()
	}
	if !p.interested && x.table.Interesting(p.key) {
		p.interested = true
		p.send(wire.Message{Type: wire.Interested})
	}
	for {
		i, ok := x.table.Next(p.key, x.now)
		if !ok {
			return
		}
		x.request(p, i)
	}
}

// seek asks the best peer for piece i now, if there is one.
func (x *Exchange) seek(i int, urgent bool) {
	if k, ok := x.table.Source(i, x.now, urgent); ok {
		x.request(x.byKey[k], i)
	}
}

// wakeWithin has Wake called after delay at the latest.
func (x *Exchange) wakeWithin(delay time.Duration) {
	if at := x.now + delay; x.wakeAt == 0 || at < x.wakeAt {
		x.wakeAt = at
		x.do(WakeAt{at})
	}
}

// Wake does what was put off: it has sent what was to be sent later, and answers.
func (x *Exchange) Wake() {
	x.wakeAt = 0
	x.answerNext()
	x.do(SendAll{})
}
