package swarm

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"io"
	"net/netip"
	"time"

	"viver.lan/internal/contain"
	"viver.lan/internal/copies"
	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// Proofs of copies: package copies says whom to ask for what and what the answers
// are worth. Here questions and answers are sent, and pieces are hashed, by one
// goroutine for the answers of this node and by another for those of others.

// copyProofs is the swarm's part in proofs, guarded by the swarm's lock.
type copyProofs struct {
	ledger *copies.Ledger
	peers  map[string]*peer // those that the ledger knows to be here

	turns      copies.FairQueue[challenge]
	wakeAnswer chan struct{}
	answers    []answer // of others, to be checked; as many as were asked for
	wakeCheck  chan struct{}

	next  time.Duration // when to ask again
	told  time.Duration // which failures were logged
	stats ProofStats
}

// ProofStats counts what proofs cost this node.
type ProofStats struct {
	// Asked and Answered count questions, Bytes what was hashed for both.
	Asked, Answered, Bytes uint64
}

// challenge is a question of a peer that waits for its turn.
type challenge struct {
	p *peer
	c wire.Challenge
}

// answer is what a peer answered.
type answer struct {
	asked  copies.Question
	digest [wire.DigestSize]byte
}

func newCopyProofs(pieceLength int64) copyProofs {
	var seed [32]byte
	_, _ = crand.Read(seed[:]) // never fails
	return copyProofs{ledger: copies.NewLedger(pieceLength, seed), peers: make(map[string]*peer),
		wakeAnswer: make(chan struct{}, 1), wakeCheck: make(chan struct{}, 1)}
}

// machineOf names the machine at the other end of a connection, for people too;
// "" for this one.
func (s *Swarm) machineOf(local, remote netip.Addr) string {
	if local, remote = local.Unmap(), remote.Unmap(); local == remote {
		return ""
	}
	if s.cfg.Machine != nil {
		if name := s.cfg.Machine(remote); name != "" {
			return name
		}
	}
	return remote.String()
}

// provable reports whether copies of the peer are of interest here. The first
// node's are to who may drop something because the first node has it.
func (s *Swarm) provable(p *peer) bool {
	switch p.kind {
	case schedule.Node:
		return p.proved
	case schedule.Origin:
		return p.proved && !s.cfg.Origin && !ImageOf(s.cfg.Info).Whole(s.cfg.Budget)
	}
	return false
}

// originRush is for how long the first node is left alone: it may have to read a
// disc for an answer, while others boot.
const originRush = time.Minute

// joinProofs lets a peer that is ready be asked for proofs, if its copies are of
// interest.
func (s *Swarm) joinProofs(p *peer) {
	if s.provable(p) && !p.closing {
		s.copies.peers[p.nodeID()] = p
		s.copies.ledger.Connected(p.nodeID(), p.machine, s.now())
		if p.kind == schedule.Origin {
			s.copies.ledger.Postpone(p.nodeID(), s.now()+originRush)
		}
	}
}

// leaveProofs ends that.
func (s *Swarm) leaveProofs(p *peer) {
	if s.copies.peers[p.nodeID()] == p {
		delete(s.copies.peers, p.nodeID())
		s.copies.ledger.Gone(p.nodeID(), s.now())
	}
}

// handyDraws is how often a piece is drawn until one is handy.
const handyDraws = 16

// claims are the pieces of others as package copies sees them.
type claims struct{ s *Swarm }

// Common implements copies.Pieces.
func (c claims) Common(id string, draw func(n int) int) (int, bool) {
	p := c.s.copies.peers[id]
	if p == nil {
		return 0, false
	}
	for range handyDraws {
		i, ok := c.s.table.PeerPieces(p.key).Common(c.s.table.Held(), draw)
		if !ok || c.s.cfg.Handy == nil || c.s.cfg.Handy(i) {
			return i, ok
		}
	}
	return -1, true
}

// Both implements copies.Pieces.
func (c claims) Both(id string, i int) bool {
	p := c.s.copies.peers[id]
	return p != nil && c.s.table.PeerPieces(p.key).Has(i) && c.s.table.Held().Has(i)
}

// Doubt replaces the claims on which something hangs for this node; those that
// come first are to be proved first.
func (s *Swarm) Doubt(doubts []copies.Doubt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.copies.ledger.Doubt(doubts)
}

// proveEvery is how often it is looked whom to ask.
const proveEvery = 200 * time.Millisecond

// prove asks those who are to be asked now. It runs with s.mu held. A peer that
// never said where it wants questions is asked all the same: it will be late.
func (s *Swarm) prove(now time.Duration) {
	if now < s.copies.next {
		return
	}
	s.copies.next = now + proveEvery
	for _, q := range s.copies.ledger.Next(now, claims{s}) {
		s.copies.stats.Asked++
		if p := s.copies.peers[q.ID]; p.hello.M.Challenge != 0 {
			p.say(wire.Challenge{Piece: q.Piece, Nonce: q.Nonce}.Append(nil, p.hello.M.Challenge))
		}
	}
	s.tellFailures(now)
}

// nameEvery bounds the lines about failures in the log, namedAtOnce how many
// peers are named in one go.
const (
	nameEvery   = 5 * time.Second
	namedAtOnce = 3
)

// tellFailures logs who did not prove what it claims.
func (s *Swarm) tellFailures(now time.Duration) {
	if now-s.copies.told < nameEvery {
		return
	}
	var failed []copies.Failure
	for _, f := range s.copies.ledger.Failures() {
		if f.Since > s.copies.told {
			failed = append(failed, f)
		}
	}
	if len(failed) == 0 {
		return
	}
	s.copies.told = now
	for n, f := range failed {
		if n == namedAtOnce {
			s.log.Warn("more peers did not prove what they claim", "peers", len(failed)-n)
			break
		}
		s.log.Warn("peer did not prove what it claims, its copies do not count", "peer", s.provedName(f), "machine", f.Machine, "why", f.Reason)
	}
	s.setOwned()
}

// provedName names who failed for people.
func (s *Swarm) provedName(f copies.Failure) string {
	if p := s.copies.peers[f.ID]; p != nil {
		return p.name
	}
	return printable([]byte(f.ID))
}

// challenged takes a question of a peer. Only nodes are answered.
func (s *Swarm) challenged(p *peer, c wire.Challenge) {
	if p.proved && s.copies.turns.Add(p.machine, challenge{p, c}) {
		wake(s.copies.wakeAnswer)
	}
}

// answered takes a peer's answer.
func (s *Swarm) answered(p *peer, a wire.Answer) {
	if q, ok := s.copies.ledger.Answered(p.nodeID(), a.Piece); ok {
		s.copies.answers = append(s.copies.answers, answer{q, a.Digest})
		wake(s.copies.wakeCheck)
	}
}

// answerLoop answers the questions of others, at a bounded rate.
func (s *Swarm) answerLoop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		s.mu.Lock()
		c, wait, ok := s.copies.turns.Next(s.now(), s.cfg.Info.PieceLength)
		s.mu.Unlock()
		if ok {
			if !c.p.gone() {
				contain.Do(s.log, "a question for a proof", func() { s.answerOne(ctx, c) })
			}
			continue
		}
		if wait > 0 {
			timer.Reset(wait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.copies.wakeAnswer:
		case <-timer.C:
		}
	}
}

// gone reports whether the connection has ended.
func (p *peer) gone() bool {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	return p.closing
}

func (s *Swarm) answerOne(ctx context.Context, c challenge) {
	i := c.c.Piece
	digest, err := s.digest(ctx, i, copies.Nonce(c.c.Nonce), string(s.cfg.Key.ID()))
	gone := err != nil && !s.cfg.Store.Has(i)
	if gone {
		s.Lost(i)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case c.p.closing:
	case err == nil && c.p.hello.M.Answer != 0:
		s.copies.stats.Answered++
		c.p.say(wire.Answer{Piece: i, Digest: digest}.Append(nil, c.p.hello.M.Answer))
	case gone && c.p.hello.M.DontHave != 0: // it may have been asked before it was told
		c.p.say(wire.AppendPieceHint(nil, c.p.hello.M.DontHave, i))
	}
}

// checkLoop checks the answers of others.
func (s *Swarm) checkLoop(ctx context.Context) error {
	for {
		s.mu.Lock()
		answers := s.copies.answers
		s.copies.answers = nil
		s.mu.Unlock()
		for _, a := range answers {
			contain.Do(s.log, "an answer with a proof", func() { s.check(ctx, a) })
		}
		if len(answers) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.copies.wakeCheck:
		}
	}
}

func (s *Swarm) check(ctx context.Context, a answer) {
	digest, err := s.digest(ctx, a.asked.Piece, a.asked.Nonce, a.asked.ID)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil { // the piece was evicted here meanwhile
		s.copies.ledger.Withdraw(a.asked)
		return
	}
	s.copies.ledger.Checked(a.asked, digest == a.digest, s.now())
}

// digest hashes piece i as the proof of a holder. It takes its time: whoever
// reads goes first.
func (s *Swarm) digest(ctx context.Context, i int, nonce copies.Nonce, holder string) (sum [wire.DigestSize]byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, copies.AnswerWithin)
	defer cancel()
	piece, err := s.cfg.Store.Open(ctx, i, false)
	if err != nil {
		return sum, fmt.Errorf("open piece %d for a proof: %w", i, err)
	}
	defer piece.Release()
	h := copies.NewDigest(nonce, holder)
	size := s.cfg.Info.PieceSize(i)
	if file, off := piece.File(); file == nil {
		h.Write(piece.Bytes())
	} else {
		buf := s.buffer(wire.BlockSize)
		defer s.free(buf)
		if _, err := io.CopyBuffer(h, io.NewSectionReader(file, off, size), *buf); err != nil {
			s.cfg.Store.Unreadable(i, err)
			return sum, fmt.Errorf("read piece %d for a proof: %w", i, err)
		}
	}
	s.mu.Lock()
	s.copies.stats.Bytes += uint64(size)
	s.mu.Unlock()
	h.Sum(sum[:0])
	return sum, nil
}

// disproved reports whether a peer did not prove what it claims.
func (s *Swarm) disproved(p *peer) bool {
	return s.copies.ledger.Standing(p.nodeID()) == copies.Failed
}

// Claim is what a peer says that it keeps. It counts only as far as it is proved.
type Claim struct {
	// Budget is how many bytes of pieces it keeps.
	Budget int64
	// Pieces are those it has.
	Pieces schedule.Set
}

// ProofFailure tells people who did not prove what it claims, and how.
type ProofFailure struct {
	// Peer is its address, or its ID when it is gone, Machine what it is counted
	// by, ID its name on the wire.
	Peer    string        `json:"peer"`
	ID      string        `json:"id"`
	Machine string        `json:"machine"`
	Why     string        `json:"why"`
	Ago     time.Duration `json:"ago"`
}

// ProofFailures lists the last of those who did not prove what they claim and
// have not done so since.
func (s *Swarm) ProofFailures() []ProofFailure {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []ProofFailure
	for _, f := range s.copies.ledger.Failures() {
		out = append(out, ProofFailure{Peer: s.provedName(f), ID: printable([]byte(f.ID)), Machine: f.Machine, Why: f.Reason, Ago: s.now() - f.At})
	}
	return out
}

// ProofStats returns what proofs have cost.
func (s *Swarm) ProofStats() ProofStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.copies.stats
}
