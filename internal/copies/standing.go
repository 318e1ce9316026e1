package copies

import (
	"cmp"
	"slices"
	"time"

	"viver.lan/internal/identity"
)

// What the ledger knows about identities.

// Standing returns the standing of an identity.
func (l *Ledger) Standing(id identity.ID) Standing {
	if r := l.records[id]; r != nil {
		return r.standing
	}
	return Unproved
}

// Failures lists those who failed last and have not proved themselves since.
func (l *Ledger) Failures() []Failure {
	l.failures = slices.DeleteFunc(l.failures, func(f Failure) bool { return l.Standing(f.ID) != Failed })
	return slices.Clone(l.failures)
}

// Proves reports whether an identity proved this very piece not long ago.
func (l *Ledger) Proves(id identity.ID, piece int, now time.Duration) bool {
	r := l.records[id]
	if r == nil || r.standing != Proved {
		return false
	}
	at, ok := r.proved[piece]
	return ok && now-at < Holds
}

// ProvedPieces returns the pieces that Proves is true of, in no order.
func (l *Ledger) ProvedPieces(id identity.ID, now time.Duration) []int {
	var out []int
	if r := l.records[id]; r != nil {
		for piece := range r.proved {
			if l.Proves(id, piece, now) {
				out = append(out, piece)
			}
		}
	}
	return out
}

// Counts reports whether the claims of an identity count as copies: it is
// proved, and no other identity of its machine counts already.
func (l *Ledger) Counts(id identity.ID) bool {
	r := l.records[id]
	return r != nil && r.connected && r.standing == Proved && l.represents(r)
}

// Place reports whether pieces may be left to an identity to keep: it is proved,
// or claims nothing yet that this node could ask for, and no other identity of
// its machine has the place already.
func (l *Ledger) Place(id identity.ID) bool {
	r := l.records[id]
	return r != nil && r.connected && r.place && l.represents(r)
}

// represents reports whether r is the identity that counts for its machine: of those
// with the best standing the one that connected first.
func (l *Ledger) represents(r *record) bool {
	if r.machine == "" {
		return false
	}
	for _, o := range l.records {
		if o != r && o.connected && o.machine == r.machine && o.before(r) {
			return false
		}
	}
	return true
}

func (r *record) before(o *record) bool {
	worth := func(r *record) int {
		switch {
		case r.standing == Proved:
			return 2
		case r.place:
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(worth(o), worth(r)), cmp.Compare(r.arrival, o.arrival)) < 0
}
