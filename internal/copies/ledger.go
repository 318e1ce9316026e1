// Package copies decides which peers are trusted to hold the pieces that they claim,
// and who is asked for a proof, of which piece and when.
//
// What a machine says of itself (HAVE, HAVE_ALL, a budget) is a claim. A proof is
// the answer to a challenge: a digest that can be computed only by a machine that
// has the piece at that moment, and that is useless to any other identity than the
// one that was asked. Only a node that has the piece can ask for it and check it.
//
// The package is pure: it owns no socket, no clock and no byte of a piece, and
// the same seed gives the same questions. The invariant: a claim counts only
// while its owner has answered correctly and in time; one wrong or missing answer
// ends that at once, and only several right ones in a row restore it.
package copies

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"viver.lan/internal/identity"
)

// Standing is the result of an identity's answers.
type Standing string

// The standings.
const (
	Unproved Standing = "unproved" // it was not asked enough yet
	Proved   Standing = "proved"   // its claims count
	Failed   Standing = "failed"   // it did not prove what it claims
)

const (
	// Enough right answers in a row let the claims of an identity count. Who
	// lacks a third of what it claims gets there in three cases of ten, and
	// stays there for a few minutes at most.
	Enough = 3
	// Two more are asked for with each failure that is not made good yet, so
	// that luck does not help for long.
	enoughLimit = 15
	// AnswerWithin is how long an answer may take. It is as long as a machine
	// may say nothing and still count as alive: one that boots, is frozen for
	// seconds or waits for a slow disk loses nothing. No deadline tells a disk
	// from a link: who fetches the piece from another holder in that time
	// passes, see Ledger.Sent for what is done about that.
	AnswerWithin = 15 * time.Second
	// Holds is how long the proof of one piece counts as a proof of that piece.
	Holds = 10 * time.Minute
	// again is how often one identity is asked when nothing hangs on it, at the
	// most.
	again = time.Minute
	// evasions in a row are a failure: an identity that is asked for a piece and
	// then says that it no longer has it.
	evasions = 3
	// retryPause is the pause before an identity that failed is asked again, doubled
	// with each failure in a row up to retryLimit.
	retryPause = 2 * time.Second
	retryLimit = 2 * time.Minute
	// unanswered bounds the questions that one identity owes an answer to.
	unanswered = 4
	// maxRecords bounds the identities remembered; those who are here are never
	// forgotten.
	maxRecords = 1000
	// maxFailures bounds the failures that are listed.
	maxFailures = 20
)

// What asking may cost, in bytes of pieces that have to be hashed at each end.
const (
	askRate    = 2 << 20   // per second, when something hangs on the answers
	askBurst   = 8 << 20   // at least four pieces
	repeatRate = 256 << 10 // per second, for asking those that are proved again
)

// Nonce makes an answer good for one question only.
type Nonce [16]byte

// Question is a challenge to be sent.
type Question struct {
	ID    identity.ID
	Piece int
	Nonce Nonce
}

// Doubt is a claim on which something hangs for this node: that one identity
// has one piece.
type Doubt struct {
	ID    identity.ID
	Piece int
}

// Pieces are the claims of others and what this node holds.
type Pieces interface {
	// Common draws a piece that this node holds and id claims; draw(n) returns
	// a number below n. It returns false when there is none, and a negative
	// piece when none can be had without trouble just now.
	Common(id identity.ID, draw func(n int) int) (piece int, ok bool)
	// Both reports whether this node holds the piece and id claims it.
	Both(id identity.ID, piece int) bool
}

// Failure says who did not prove what it claims.
type Failure struct {
	ID      identity.ID
	Machine string
	Reason  Reason
	Piece   int // that was asked about last
	// At is the last failure, Since the first one that was not made good.
	At, Since time.Duration
}

// Reason is what shows that an identity does not hold what it claims.
type Reason string

// The reasons. The last two count when they come several times in a row.
const (
	NoAnswer     Reason = "no_answer"    // none within AnswerWithin
	WrongAnswer  Reason = "wrong_answer" // not the piece's digest
	Withdrawn    Reason = "withdrawn"    // it no longer claims what it is asked for
	Contradicted Reason = "contradicted" // it asks for what it claims
)

// String says it for people.
func (r Reason) String() string {
	switch r {
	case NoAnswer:
		return "did not answer within " + AnswerWithin.String()
	case WrongAnswer:
		return "gave a wrong answer"
	case Withdrawn:
		return fmt.Sprintf("no longer had what it was asked for, %d times in a row", evasions)
	}
	return fmt.Sprintf("asked for what it claims to have, %d times in a row", evasions)
}

// Ledger is what one node knows of the proofs of others. It is not safe for
// concurrent use. Times are durations since any fixed moment.
type Ledger struct {
	piece    int64
	source   *rand.ChaCha8
	rng      *rand.Rand
	records  map[identity.ID]*record
	arrivals int
	open     []*question // and some that were closed
	doubts   []Doubt
	failures []Failure

	allowed float64 // bytes that may be asked for now
	filled  time.Duration
}

// record is what is known of one identity. Its maps are as large as the rate of
// questions allows.
type record struct {
	id        identity.ID
	machine   string
	connected bool
	arrival   int // in the order of connections
	standing  Standing
	place     bool // see Place
	streak    int  // right answers in a row
	evaded    int  // evasions since the last right answer
	fails     int  // failures in a row
	next      time.Duration
	asked     map[int]*question
	proved    map[int]time.Duration
	seen      time.Duration
}

type question struct {
	Question
	since    time.Duration
	answered bool // the answer has come and is being checked
	void     bool // the piece was sent to somebody meanwhile
	done     bool
}

// NewLedger returns the ledger of a node that knows nobody, for pieces of so
// many bytes. Nobody must be able to guess the seed.
func NewLedger(pieceLength int64, seed [32]byte) *Ledger {
	source := rand.NewChaCha8(seed)
	l := &Ledger{piece: pieceLength, source: source, rng: rand.New(source), records: make(map[identity.ID]*record)}
	l.allowed = l.burst()
	return l
}

func (l *Ledger) burst() float64 { return float64(max(askBurst, 4*l.piece)) }

// Connected says that an identity is here, on a machine that goes by the given
// name: all identities of one machine are one copy. The machine "" is this one,
// whose copies are not another's.
func (l *Ledger) Connected(id identity.ID, machine string, now time.Duration) {
	r := l.records[id]
	if r == nil {
		l.forget()
		r = &record{id: id, standing: Unproved, asked: make(map[int]*question), proved: make(map[int]time.Duration)}
		l.records[id] = r
	}
	if !r.connected {
		l.arrivals++
		r.arrival, r.connected = l.arrivals, true
	}
	r.machine, r.seen = machine, now
}

// Postpone has an identity asked nothing that nothing hangs on before a time.
func (l *Ledger) Postpone(id identity.ID, until time.Duration) {
	if r := l.records[id]; r != nil {
		r.next = max(r.next, until)
	}
}

// Gone says that an identity is here no more. What it has proved counts no
// more; a failure is remembered.
func (l *Ledger) Gone(id identity.ID, now time.Duration) {
	r := l.records[id]
	if r == nil {
		return
	}
	r.connected, r.place, r.seen = false, false, now
	r.streak = 0
	r.closeAll()
	clear(r.proved)
	if r.standing == Proved {
		r.standing, r.next = Unproved, now
	}
}

// forget makes room for one more identity.
func (l *Ledger) forget() {
	if len(l.records) < maxRecords {
		return
	}
	var oldest *record
	for _, r := range l.records {
		if !r.connected && (oldest == nil || cmp.Or(cmp.Compare(r.seen, oldest.seen), r.id.Compare(oldest.id)) < 0) {
			oldest = r
		}
	}
	if oldest != nil {
		delete(l.records, oldest.id)
	}
}

// Doubt replaces the claims on which something hangs. They are asked for as
// soon as the rate allows, the first ones first.
func (l *Ledger) Doubt(doubts []Doubt) { l.doubts = doubts }

// Next returns the questions to ask now, and notes them as asked. Call it a few
// times a second.
func (l *Ledger) Next(now time.Duration, pieces Pieces) []Question {
	l.allowed = min(l.burst(), l.allowed+askRate*(now-l.filled).Seconds())
	l.filled = now
	l.open = slices.DeleteFunc(l.open, func(q *question) bool { return q.done })
	here := l.here()
	for _, r := range here {
		l.expire(r, now)
	}
	var out []Question
	ask := func(r *record, piece int) {
		q := &question{Question: Question{ID: r.id, Piece: piece}, since: now}
		_, _ = l.source.Read(q.Nonce[:]) // never fails
		r.asked[piece] = q
		l.open = append(l.open, q)
		l.allowed -= float64(l.piece)
		out = append(out, q.Question)
	}
	repeat := max(again, time.Duration(float64(len(here))*float64(l.piece)/repeatRate*float64(time.Second)))
	random := func(proved bool) {
		for _, r := range here {
			if (r.standing == Proved) != proved || now < r.next || len(r.asked) > 0 || l.allowed < float64(l.piece) {
				continue
			}
			piece, ok := pieces.Common(r.id, l.rng.IntN)
			if !ok {
				r.claimsNothing()
				continue
			}
			if piece < 0 {
				continue
			}
			if proved {
				r.next = now + repeat/2 + time.Duration(l.rng.Int64N(int64(repeat)))
			}
			ask(r, piece)
		}
	}
	random(false)
	for _, d := range l.doubts {
		r := l.records[d.ID]
		if l.allowed < float64(l.piece) {
			break
		}
		if r != nil && r.connected && r.standing == Proved && len(r.asked) < unanswered && r.asked[d.Piece] == nil &&
			!l.Proves(d.ID, d.Piece, now) && pieces.Both(d.ID, d.Piece) {
			ask(r, d.Piece)
		}
	}
	random(true)
	return out
}

// here returns the identities that are here, those that wait for longest first.
func (l *Ledger) here() []*record {
	var out []*record
	for _, r := range l.records {
		if r.connected {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *record) int {
		return cmp.Or(cmp.Compare(a.next, b.next), cmp.Compare(a.arrival, b.arrival))
	})
	return out
}
