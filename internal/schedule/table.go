// Package schedule decides which piece to ask of which peer, and when.
//
// It is a pure state machine: the caller tells it what happened and what time
// it is, and asks for decisions. It knows no sockets, no clocks and no bytes,
// so the same code runs in a node and in a simulator, and the same seed gives
// the same decisions. The invariant: a piece is asked of a second peer only
// when the first is late, stalled or gone.
//
// The rules, in order of weight: what somebody waits for goes first; the
// origin gives each piece to the node that owns it; everybody else takes it
// from there, rarest first, ties at random (in-order picking and in-order
// ties both collapse when all nodes read together).
package schedule

import (
	"cmp"
	"math/bits"
	"math/rand/v2"
	"slices"
	"time"
)

// Kind says what a peer is to us.
type Kind uint8

// The kinds of peers.
const (
	Stranger Kind = iota // another BitTorrent program
	Node                 // one of our nodes
	Origin               // the first node: it had the image before anyone else
)

func (k Kind) String() string { return [...]string{"stranger", "node", "origin"}[k] }

// Params are the tunables. The zero value of a field means its default.
type Params struct {
	// Window is how many pieces from the playhead on go before the rest.
	Window int
	// MinDepth and MaxDepth bound the pieces asked of one peer at a time.
	MinDepth, MaxDepth int
	// Ahead is how much time's worth of data is asked of one peer at a time.
	Ahead time.Duration
	// Total bounds the pieces asked of all peers together; demands exceed it.
	// It must not be smaller than MinDepth times the number of peers: what a
	// node has just taken from the origin has to be asked of it at once.
	Total int
	// Hedge is the shortest time after which a second peer is asked, when that
	// is more than a peer usually takes.
	Hedge time.Duration
	// Stall is the shortest silence after which a peer that owes us data counts
	// as stalled: others are asked, and it gets no new requests. It is four
	// times what a piece usually takes the peer where that is more.
	Stall time.Duration
}

func (p Params) withDefaults() Params {
	p.Window = cmp.Or(p.Window, 64)
	p.MinDepth = cmp.Or(p.MinDepth, 2)
	p.MaxDepth = cmp.Or(p.MaxDepth, 8)
	p.Ahead = cmp.Or(p.Ahead, 30*time.Millisecond)
	p.Total = cmp.Or(p.Total, 128)
	p.Hedge = cmp.Or(p.Hedge, 500*time.Millisecond)
	p.Stall = cmp.Or(p.Stall, 3*time.Second)
	return p
}

// Key names a peer in a table: one connection, before and after it is known which
// node is at its other end, if any is.
type Key int

// Table is what one node knows about pieces and peers. It is not safe for
// concurrent use. Times are durations since any fixed moment.
type Table struct {
	n      int
	params Params
	rng    *rand.Rand

	held      Set
	wanted    Set
	demanded  Set
	demands   []int // the demanded pieces, longest waited for first
	owned     Set   // pieces that this node takes from the origin
	verifying Set   // all bytes are here, not yet verified
	busy      Set   // asked of a peer that is trusted

	avail    []uint16 // trusted nodes other than the origin that would send the piece
	askers   []uint8  // trusted peers that the piece is asked of
	peers    []*peer  // in order of arrival
	byKey    map[Key]*peer
	inflight int           // sum of askers
	last     time.Duration // when the last piece was complete
	pace     time.Duration // between pieces, smoothed
	usual    time.Duration // from a request to its piece, of all peers, smoothed
	flow     time.Duration // between pieces while something is asked, smoothed
	began    time.Duration // since when something is asked without a break
	untried  int           // of inflight: asked of peers that have given nothing yet
	playhead int
}

type peer struct {
	key     Key
	kind    Kind
	has     Set
	choked  bool
	stalled bool
	suspect bool // has failed, and not given a piece since; see standing.go
	asks    []ask
	refused map[int]time.Duration // pieces not to be asked again before
	last    time.Duration         // when its last byte came
	done    time.Duration         // when its last piece was complete
	latency time.Duration         // from request to the last byte, smoothed
	service time.Duration         // per piece while busy, smoothed
	beaten  int                   // pieces in a row that others sent first although asked later
	rests   time.Duration         // not to be asked before
	given   int                   // pieces that it sent
	credit  int                   // pieces given less those it failed to give, within bounds
	lapses  int                   // how often it lost its standing, less what it made up for
	probe   time.Duration         // as a suspect it is not asked before
}

type ask struct {
	piece int
	since time.Duration
}

// NewTable returns the table of a node that holds and wants nothing.
func NewTable(pieces int, seed uint64, params Params) *Table {
	t := &Table{
		n: pieces, params: params.withDefaults(), rng: rand.New(rand.NewPCG(seed, 0x5649564552)),
		avail: make([]uint16, pieces), askers: make([]uint8, pieces), byKey: make(map[Key]*peer),
	}
	for _, s := range []*Set{&t.held, &t.wanted, &t.demanded, &t.owned, &t.verifying, &t.busy} {
		*s = NewSet(pieces)
	}
	return t
}

// AddPeer adds a peer, a choking stranger without pieces until told otherwise.
func (t *Table) AddPeer(k Key) {
	p := &peer{key: k, choked: true, has: NewSet(t.n), refused: map[int]time.Duration{}}
	t.peers = append(t.peers, p)
	t.byKey[k] = p
}

// RemovePeer forgets a peer and all that was asked of it.
func (t *Table) RemovePeer(k Key) {
	p := t.byKey[k]
	if p == nil {
		return
	}
	t.change(p, func() { p.choked = true })
	for len(p.asks) > 0 {
		t.forget(p, p.asks[0].piece)
	}
	t.peers = slices.DeleteFunc(t.peers, func(q *peer) bool { return q == p })
	delete(t.byKey, k)
}

// SetKind says what peer k is.
func (t *Table) SetKind(k Key, kind Kind) {
	if p := t.byKey[k]; p != nil {
		t.change(p, func() { p.kind = kind })
	}
}

// SetChoked says whether peer k answers our requests now.
func (t *Table) SetChoked(k Key, choked bool) {
	if p := t.byKey[k]; p != nil {
		t.change(p, func() { p.choked = choked })
	}
}

// change applies f to p and keeps the counts that depend on p's state right.
func (t *Table) change(p *peer, f func()) {
	counts := func() (avail, asks bool) {
		return p.kind == Node && !p.choked && p.trusted(), p.trusted()
	}
	availBefore, asksBefore := counts()
	f()
	avail, asks := counts()
	if avail != availBefore {
		each(0, t.n, func(w int) uint64 { return p.has.words[w] }, func(i int) bool {
			if avail {
				t.avail[i]++
			} else {
				t.avail[i]--
			}
			return true
		})
	}
	if asks != asksBefore {
		for _, a := range p.asks {
			t.countAsk(p, a.piece, asks)
		}
	}
}

func (t *Table) countAsk(p *peer, i int, on bool) {
	n := 1
	if on {
		t.askers[i]++
	} else {
		n = -1
		t.askers[i]--
	}
	t.inflight += n
	if p.given == 0 {
		t.untried += n
	}
	t.busy.Set(i, t.askers[i] > 0)
}

// PeerHas says whether peer k has piece i.
func (t *Table) PeerHas(k Key, i int, has bool) {
	p := t.byKey[k]
	if p == nil || !p.has.Set(i, has) {
		return
	}
	if p.kind == Node && !p.choked && p.trusted() {
		if has {
			t.avail[i]++
		} else {
			t.avail[i]--
		}
	}
}

// PeerPieces returns the set of pieces that peer k has; it must not be
// changed and is valid until the next call of a method.
func (t *Table) PeerPieces(k Key) *Set {
	if p := t.byKey[k]; p != nil {
		return &p.has
	}
	empty := NewSet(t.n)
	return &empty
}

// Uncovered returns how many pieces neither this node holds nor any of the given
// peers has.
func (t *Table) Uncovered(peers []Key) int {
	missing := t.n
	for w, have := range t.held.words {
		for _, k := range peers {
			if p := t.byKey[k]; p != nil {
				have |= p.has.words[w]
			}
		}
		missing -= bits.OnesCount64(have)
	}
	return missing
}

// SetHeld says whether this node holds piece i, verified.
func (t *Table) SetHeld(i int, held bool) {
	t.held.Set(i, held)
	t.verifying.Set(i, false)
}

// Held returns the set of pieces that this node holds; it must not be changed.
func (t *Table) Held() *Set { return &t.held }

// Want says whether piece i shall be fetched when there is nothing better to
// do.
func (t *Table) Want(i int, want bool) { t.wanted.Set(i, want) }

// Wanted reports whether piece i is to be fetched.
func (t *Table) Wanted(i int) bool { return t.wanted.Has(i) }

// Demand says whether somebody waits for piece i.
func (t *Table) Demand(i int, demand bool) {
	switch changed := t.demanded.Set(i, demand); {
	case !changed:
	case demand:
		t.demands = append(t.demands, i)
	default:
		t.demands = slices.DeleteFunc(t.demands, func(d int) bool { return d == i })
	}
}

// Demands returns the pieces that somebody waits for, longest first; they must not
// be changed.
func (t *Table) Demands() []int { return t.demands }

// Demanded reports whether somebody waits for piece i.
func (t *Table) Demanded(i int) bool { return t.demanded.Has(i) }

// SetPlayhead says where in the payload this node reads.
func (t *Table) SetPlayhead(i int) { t.playhead = i }

// SetOwned says which pieces this node takes from the origin.
func (t *Table) SetOwned(owned func(i int) bool) {
	for i := range t.n {
		t.owned.Set(i, owned(i))
	}
}

// Verifying says that all bytes of piece i are here and being verified. It
// ends with SetHeld.
func (t *Table) Verifying(i int) { t.verifying.Set(i, true) }

// Complete reports whether nothing is left to fetch.
func (t *Table) Complete() bool {
	for w := range t.held.words {
		if (t.wanted.words[w]|t.demanded.words[w])&^t.held.words[w] != 0 {
			return false
		}
	}
	return true
}

// Interesting reports whether peer k has something that this node needs.
func (t *Table) Interesting(k Key) bool {
	p := t.byKey[k]
	if p == nil {
		return false
	}
	for w := range t.held.words {
		if p.has.words[w]&(t.wanted.words[w]|t.demanded.words[w])&^t.held.words[w] != 0 {
			return true
		}
	}
	return false
}

// Asked returns the peers that piece i is asked of.
func (t *Table) Asked(i int) (asked []Key) {
	for _, p := range t.peers {
		if p.asked(i) {
			asked = append(asked, p.key)
		}
	}
	return asked
}

func (p *peer) asked(i int) bool {
	return slices.ContainsFunc(p.asks, func(a ask) bool { return a.piece == i })
}

func (t *Table) ask(p *peer, i int, now time.Duration) {
	p.asks = append(p.asks, ask{i, now})
	if t.inflight == 0 {
		t.began = now
	}
	if p.trusted() {
		t.countAsk(p, i, true)
	}
}

// forget takes back that piece i is asked of p.
func (t *Table) forget(p *peer, i int) {
	for n, a := range p.asks {
		if a.piece == i {
			p.asks = slices.Delete(p.asks, n, n+1)
			if p.trusted() {
				t.countAsk(p, i, false)
			}
			return
		}
	}
}
