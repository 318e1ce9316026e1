package copies

import (
	"slices"
	"time"

	"viver.lan/internal/identity"
)

// How answers, and what else a peer does, change its standing.

// expire acts on answers that are late, and forgets old proofs.
func (l *Ledger) expire(r *record, now time.Duration) {
	for piece, at := range r.proved {
		if now-at >= Holds {
			delete(r.proved, piece)
		}
	}
	late := -1
	for piece, q := range r.asked {
		if !q.answered && now-q.since >= AnswerWithin && (late < 0 || piece < late) {
			late = piece
		}
	}
	if late >= 0 {
		l.fail(r, now, NoAnswer, late)
	}
}

// Answered returns the question that an answer of id about a piece belongs to,
// and stops its clock: Checked or Withdraw has to follow. It returns false when
// there is no such question.
func (l *Ledger) Answered(id identity.ID, piece int) (Question, bool) {
	r := l.records[id]
	if r == nil || r.asked[piece] == nil || r.asked[piece].answered {
		return Question{}, false
	}
	r.asked[piece].answered = true
	return r.asked[piece].Question, true
}

// Checked says whether the answer to a question was right.
func (l *Ledger) Checked(asked Question, right bool, now time.Duration) {
	r, q := l.find(asked)
	if q == nil {
		return
	}
	r.close(q.Piece)
	switch {
	case !right:
		l.fail(r, now, WrongAnswer, q.Piece)
	case q.void: // it proves nothing: ask again soon
		r.next = min(r.next, now+time.Second)
	default:
		r.proved[q.Piece] = now
		r.right(now)
	}
}

// Withdraw takes a question back that this node can no longer check.
func (l *Ledger) Withdraw(asked Question) {
	if r, q := l.find(asked); q != nil {
		r.close(q.Piece)
	}
}

// close ends the question about a piece.
func (r *record) close(piece int) {
	r.asked[piece].done = true
	delete(r.asked, piece)
}

func (r *record) closeAll() {
	for piece := range r.asked {
		r.close(piece)
	}
}

// find returns a question that is still open, nil otherwise.
func (l *Ledger) find(asked Question) (*record, *question) {
	r := l.records[asked.ID]
	if r == nil || r.asked[asked.Piece] == nil || r.asked[asked.Piece].Nonce != asked.Nonce {
		return nil, nil
	}
	return r, r.asked[asked.Piece]
}

// claimsNothing notes that an identity claims no piece that this node could ask for,
// as a machine that has just started does, also one that failed earlier.
func (r *record) claimsNothing() {
	if r.standing != Proved {
		r.standing, r.place = Unproved, true
	}
}

// right counts a right answer.
func (r *record) right(now time.Duration) {
	r.streak++
	r.evaded = 0
	switch {
	case r.standing == Proved:
		r.fails = max(0, r.fails-1)
	case r.streak >= min(Enough+2*r.fails, enoughLimit):
		r.standing, r.place = Proved, true
		r.next = now + again/2
	}
}

// Sent says that this node sends a piece to a peer. An identity that is being asked
// for that piece may get it from there, so its answer does not count. A machine that
// only relays pieces therefore needs another holder, and the last one is not deceived.
func (l *Ledger) Sent(piece int) {
	for _, q := range l.open {
		q.void = q.void || q.Piece == piece
	}
}

// Dropped says that an identity no longer claims a piece. When it was just asked for
// it that may be chance, but it is no proof.
func (l *Ledger) Dropped(id identity.ID, piece int, now time.Duration) {
	r := l.records[id]
	if r == nil {
		return
	}
	delete(r.proved, piece)
	if q := r.asked[piece]; q != nil && !q.answered {
		r.close(piece)
		l.evade(r, now, Withdrawn, piece)
	}
}

// Contradicted says that an identity asked for a piece that it claims.
func (l *Ledger) Contradicted(id identity.ID, piece int, now time.Duration) {
	if r := l.records[id]; r != nil {
		delete(r.proved, piece)
		l.evade(r, now, Contradicted, piece)
	}
}

func (l *Ledger) evade(r *record, now time.Duration, how Reason, piece int) {
	r.streak = 0
	if r.standing == Proved {
		r.standing, r.next = Unproved, now
	}
	if r.evaded++; r.evaded >= evasions {
		l.fail(r, now, how, piece)
	}
}

func (l *Ledger) fail(r *record, now time.Duration, reason Reason, piece int) {
	since, others := now, l.Failures()
	r.standing, r.place, r.streak, r.evaded = Failed, false, 0, 0
	r.closeAll()
	clear(r.proved)
	r.next = now + min(retryPause<<min(r.fails, 10), retryLimit)
	r.fails++
	l.failures = slices.DeleteFunc(others, func(f Failure) bool {
		if f.ID == r.id {
			since = f.Since
		}
		return f.ID == r.id
	})
	if len(l.failures) >= maxFailures {
		l.failures = l.failures[1:]
	}
	l.failures = append(l.failures, Failure{ID: r.id, Machine: r.machine, Reason: reason, Piece: piece, At: now, Since: since})
}
