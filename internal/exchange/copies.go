package exchange

import (
	"time"

	"viver.lan/internal/copies"
	"viver.lan/internal/identity"
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// Proofs of copies: package copies says whom to ask for what and what the answers
// are worth. Here questions and answers are matched with peers; pieces are hashed
// elsewhere.

type copyProofs struct {
	ledger *copies.Ledger
	peers  map[identity.ID]*peer // those that the ledger knows to be here
	turns  copies.FairQueue[Answer]
	checks []Check // answers to be checked; as many as were asked for
	// A piece is hashed for an answer of ours, and one for the check of another's.
	answering, checking bool
	next                time.Duration // when to ask again
	logged              time.Duration // when failures were logged last
}

// ProofStats counts what proofs cost this node.
type ProofStats struct {
	// Asked and Answered count questions, Bytes what was hashed for both.
	Asked, Answered, Bytes uint64
}

// Answer is the command to hash a piece for a peer that asks. Answered has to
// follow.
type Answer struct {
	To    schedule.Key
	Asked wire.Challenge
}

// Check is the command to check the answer to a question. Checked has to follow.
type Check struct {
	Asked  copies.Question
	Digest [wire.DigestSize]byte
}

func newCopyProofs(pieceLength int64, seed [32]byte) copyProofs {
	return copyProofs{ledger: copies.NewLedger(pieceLength, seed), peers: make(map[identity.ID]*peer)}
}

// provable reports whether copies of the peer are of interest here. The first
// node's are to who may drop something because the first node has it.
func (x *Exchange) provable(p *peer) bool {
	switch p.kind {
	case schedule.Node:
		return p.proved
	case schedule.Origin:
		return p.proved && !x.cfg.Origin && !x.cfg.Image.Whole(x.cfg.Budget)
	}
	return false
}

// originRush is for how long the first node is left alone: it may have to read a
// disc for an answer, while others boot.
const originRush = time.Minute

// joinProofs lets a peer that is ready be asked for proofs, if its copies are of
// interest.
func (x *Exchange) joinProofs(p *peer) {
	if x.provable(p) && !p.closing {
		x.copies.peers[p.node] = p
		x.copies.ledger.Connected(p.node, p.Machine, x.now)
		if p.kind == schedule.Origin {
			x.copies.ledger.Postpone(p.node, x.now+originRush)
		}
	}
}

// leaveProofs ends that.
func (x *Exchange) leaveProofs(p *peer) {
	if x.copies.peers[p.node] == p {
		delete(x.copies.peers, p.node)
		x.copies.ledger.Gone(p.node, x.now)
	}
}

// handyDraws is how often a piece is drawn until one is handy.
const handyDraws = 16

// claims are the pieces of others as package copies sees them.
type claims struct{ x *Exchange }

// Common implements copies.Pieces.
func (c claims) Common(id identity.ID, draw func(n int) int) (int, bool) {
	p := c.x.copies.peers[id]
	if p == nil {
		return 0, false
	}
	for range handyDraws {
		i, ok := c.x.table.PeerPieces(p.key).Common(c.x.table.Held(), draw)
		if !ok || c.x.handy(i) {
			return i, ok
		}
	}
	return -1, true
}

// Both implements copies.Pieces.
func (c claims) Both(id identity.ID, i int) bool {
	p := c.x.copies.peers[id]
	return p != nil && c.x.table.PeerPieces(p.key).Has(i) && c.x.table.Held().Has(i)
}

// Doubt replaces the claims on which something hangs for this node; those that
// come first are to be proved first.
func (x *Exchange) Doubt(doubts []copies.Doubt) { x.copies.ledger.Doubt(doubts) }

// proveEvery is how often those to be asked are chosen.
const proveEvery = 200 * time.Millisecond

// prove asks those who are to be asked now. A peer that does not support
// questions counts as asked all the same: it will be late.
func (x *Exchange) prove() {
	if x.now < x.copies.next {
		return
	}
	x.copies.next = x.now + proveEvery
	for _, q := range x.copies.ledger.Next(x.now, claims{x}) {
		x.stats.Proofs.Asked++
		x.changed = true
		p := x.copies.peers[q.ID]
		p.sendExtended(p.hello.M.Challenge, wire.Challenge{Piece: q.Piece, Nonce: q.Nonce}.Payload())
	}
	x.logFailures()
}

// nameEvery bounds the lines about failures in the log, namedAtOnce how many
// peers are named in one go.
const (
	nameEvery   = 5 * time.Second
	namedAtOnce = 3
)

// logFailures logs who did not prove what it claims.
func (x *Exchange) logFailures() {
	if x.now-x.copies.logged < nameEvery {
		return
	}
	var failed []copies.Failure
	for _, f := range x.copies.ledger.Failures() {
		if f.Since > x.copies.logged {
			failed = append(failed, f)
		}
	}
	if len(failed) == 0 {
		return
	}
	x.copies.logged, x.changed = x.now, true
	for n, f := range failed {
		if n == namedAtOnce {
			x.warn("more peers did not prove what they claim", "peers", len(failed)-n)
			break
		}
		x.warn("peer did not prove what it claims, its copies do not count", "peer", x.provedName(f), "machine", f.Machine, "reason", f.Reason, "piece", f.Piece)
	}
	x.owned = false
}

// provedName names who failed for people.
func (x *Exchange) provedName(f copies.Failure) string {
	if p := x.copies.peers[f.ID]; p != nil {
		return p.name
	}
	return f.ID.String()
}

// onChallenge takes a question of a peer. Only nodes are answered.
func (x *Exchange) onChallenge(p *peer, c wire.Challenge) {
	if p.proved && x.copies.turns.Add(p.Machine, Answer{p.key, c}) {
		x.answerNext()
	}
}

// onAnswer takes a peer's answer.
func (x *Exchange) onAnswer(p *peer, a wire.Answer) {
	if q, ok := x.copies.ledger.Answered(p.node, a.Piece); ok {
		x.copies.checks = append(x.copies.checks, Check{q, a.Digest})
		x.checkNext()
	}
}

// answerNext has the next question answered, at a bounded rate.
func (x *Exchange) answerNext() {
	for !x.copies.answering {
		next, wait, ok := x.copies.turns.Next(x.now, x.cfg.Image.PieceLength)
		if !ok && wait > 0 {
			x.wakeWithin(wait)
		}
		if !ok {
			return
		}
		if p := x.byKey[next.To]; p != nil && !p.closing {
			x.copies.answering = true
			x.do(next)
		}
	}
}

// Answered takes what a question comes to. When the piece could not be read, held
// says whether it still is: the peer may have asked before it was told.
func (x *Exchange) Answered(a Answer, digest [wire.DigestSize]byte, err error, held bool) {
	x.copies.answering = false
	i, p := a.Asked.Piece, x.byKey[a.To]
	switch {
	case err == nil:
		x.hashed(i)
		if p != nil && p.hello.M.Answer != 0 {
			x.stats.Proofs.Answered++
			p.sendExtended(p.hello.M.Answer, wire.Answer{Piece: i, Digest: digest}.Payload())
		}
	case !held:
		x.SetHeld(i, false)
		if p != nil {
			p.sendHint(p.hello.M.DontHave, i)
		}
	}
	x.answerNext()
}

// checkNext has the next answer checked whose piece can still be read without
// keeping others waiting; it may have been evicted since it was asked about.
func (x *Exchange) checkNext() {
	for cs := &x.copies; !cs.checking && len(cs.checks) > 0; cs.checks = cs.checks[1:] {
		if c := cs.checks[0]; x.handy(c.Asked.Piece) {
			x.do(c)
			cs.checking = true
		} else {
			cs.ledger.Withdraw(c.Asked)
		}
	}
}

func (x *Exchange) handy(i int) bool { return x.cfg.Handy == nil || x.cfg.Handy(i) }

// Checked says whether an answer was right. An error says that the piece is held
// no longer.
func (x *Exchange) Checked(asked copies.Question, right bool, err error) {
	x.copies.checking = false
	if err != nil {
		x.copies.ledger.Withdraw(asked)
	} else {
		x.hashed(asked.Piece)
		x.copies.ledger.Checked(asked, right, x.now)
	}
	x.checkNext()
}

func (x *Exchange) hashed(i int) {
	x.stats.Proofs.Bytes += uint64(x.pieceSize(i))
	x.changed = true
}

// disproved reports whether a peer did not prove what it claims.
func (x *Exchange) disproved(p *peer) bool {
	return x.copies.ledger.Standing(p.node) == copies.Failed
}

// ProofFailure tells people who did not prove what it claims, and how.
type ProofFailure struct {
	copies.Failure
	// Peer is its address, or its ID when it is gone.
	Peer string
	Ago  time.Duration
}

// ProofFailures lists the last of those who did not prove what they claim and
// have not done so since.
func (x *Exchange) ProofFailures() []ProofFailure {
	var out []ProofFailure
	for _, f := range x.copies.ledger.Failures() {
		out = append(out, ProofFailure{f, x.provedName(f), x.now - f.At})
	}
	return out
}
