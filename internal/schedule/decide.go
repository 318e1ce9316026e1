package schedule

import (
	"cmp"
	"time"
)

// urgentDepth is how many pieces that somebody waits for a peer may owe us
// beyond its depth.
const urgentDepth = 4

// Next returns the piece to ask of peer k now and notes it as asked. It
// returns false when the peer has enough to do or nothing for us.
func (t *Table) Next(k Key, now time.Duration) (piece int, ok bool) {
	p := t.byKey[k]
	if p == nil || p.choked || p.stalled || !p.mayBeAsked(now) {
		return 0, false
	}
	i, depth := -1, t.depth(p)
	if len(p.asks) < depth+urgentDepth {
		i = t.pickDemanded(p, now)
	}
	if i < 0 && len(p.asks) < depth && t.inflight < t.params.Total && (p.given > 0 || t.untried < t.params.Total/2) {
		i = t.pick(p, now)
	}
	if i < 0 || t.slack(p, now) {
		return 0, false
	}
	t.ask(p, i, now)
	return i, true
}

// manyPeers keep a link busy with one request each. More would only make them
// wait: each peer's uplink serves as many as we have peers, and a piece that
// is new there would be passed on after all that is asked already.
const manyPeers = 24

// depth is how many pieces p may owe us: enough to keep its link busy for the
// time Ahead, because what is in flight delays what is urgent.
func (t *Table) depth(p *peer) int {
	least := t.params.MinDepth
	if len(t.peers) > manyPeers {
		least = 1
	}
	switch {
	case p.suspect:
		return 1
	case p.service <= 0:
		return least
	}
	return min(max(1+int(t.params.Ahead/p.service), least), t.params.MaxDepth)
}

// pickDemanded returns the piece that somebody has waited for longest, of
// those that p could send and nobody is asked for.
func (t *Table) pickDemanded(p *peer, now time.Duration) int {
	for _, i := range t.demands {
		if !t.busy.Has(i) && !t.held.Has(i) && !t.verifying.Has(i) && p.has.Has(i) && !p.refuses(i, now) {
			return i
		}
	}
	return -1
}

func (t *Table) pick(p *peer, now time.Duration) int {
	free := t.free(p, &t.wanted)
	if p.kind == Origin {
		return t.pickFromOrigin(p, now, free)
	}
	end := min(t.playhead+t.params.Window, t.n)
	if i := t.rarest(p, now, t.playhead, end, free); i >= 0 {
		return i
	}
	if i := t.rarest(p, now, end, t.n, free); i >= 0 {
		return i
	}
	return t.rarest(p, now, 0, t.playhead, free)
}

// free returns, word by word, the pieces of from that p could send us and
// nobody is asked for.
func (t *Table) free(p *peer, from *Set) func(w int) uint64 {
	return func(w int) uint64 {
		return from.words[w] & p.has.words[w] &^ (t.held.words[w] | t.busy.words[w] | t.verifying.words[w])
	}
}

// pickFromOrigin takes what this node owns, in the order of the medium, which
// may be a disc that seeks slowly, and leaves what enough others have to them:
// a node that comes late must not slow down those who came before. With that
// done it helps out, one piece at a time: what no other node has may be owned
// by a node in trouble. And it goes on when the others are so slow that the
// origin alone would be quicker.
func (t *Table) pickFromOrigin(p *peer, now time.Duration, free func(int) uint64) int {
	nodes := 0
	for _, q := range t.peers {
		if q.kind == Node && q.trusted() {
			nodes++
		}
	}
	mine := func(i int) bool { return int(t.avail[i]) <= nodes/4 && !p.refuses(i, now) }
	owned := func(w int) uint64 { return free(w) & t.owned.words[w] }
	if i := first(t.playhead, t.n, owned, mine); i >= 0 {
		return i
	}
	if i := first(0, t.playhead, owned, mine); i >= 0 {
		return i
	}
	quicker := t.quicker(p, now)
	if len(p.asks) > 0 && !quicker {
		return -1
	}
	i := t.rarest(p, now, 0, t.n, free)
	if i >= 0 && t.avail[i] > 0 && !quicker {
		return -1
	}
	return i
}

// first returns the first piece in [lo,hi) of free that is good, or -1.
func first(lo, hi int, free func(int) uint64, good func(i int) bool) int {
	found := -1
	each(lo, hi, free, func(i int) bool {
		if good(i) {
			found = i
		}
		return found < 0
	})
	return found
}

// rarest returns the piece in [lo,hi) of free that the fewest nodes have,
// one of them at random when there are several.
func (t *Table) rarest(p *peer, now time.Duration, lo, hi int, free func(int) uint64) int {
	found, best, ties := -1, uint16(0), 0
	each(lo, hi, free, func(i int) bool {
		switch a := t.avail[i]; {
		case found >= 0 && a > best || p.refuses(i, now):
			return true
		case found < 0 || a < best:
			found, best, ties = i, a, 1
		default:
			if ties++; t.rng.IntN(ties) == 0 {
				found = i
			}
		}
		return true
	})
	return found
}

func (p *peer) refuses(i int, now time.Duration) bool {
	if len(p.refused) == 0 {
		return false
	}
	until, ok := p.refused[i]
	if ok && now >= until {
		delete(p.refused, i)
		return false
	}
	return ok
}

// Source chooses the peer that can most likely send piece i soonest, notes it
// as asked and returns it. Peers already asked are not chosen. urgent may
// exceed a peer's depth a little, because somebody waits. What another is late
// with goes to a peer that has given something before, if one has it.
func (t *Table) Source(i int, now time.Duration, urgent bool) (Key, bool) {
	var best *peer
	ties, extra := 0, 0
	if urgent {
		extra = urgentDepth
	}
	again, known := t.askers[i] > 0, false
	for _, p := range t.peers {
		if p.choked || p.stalled || !p.has.Has(i) || p.asked(i) || p.refuses(i, now) {
			continue
		}
		known = known || p.given > 0 && !t.unfit(p, now)
		if len(p.asks) >= t.depth(p)+extra || !urgent && !p.mayBeAsked(now) {
			continue
		}
		switch c := t.compare(p, best, now, again); {
		case c < 0:
			best, ties = p, 1
		case c == 0:
			if ties++; t.rng.IntN(ties) == 0 {
				best = p
			}
		}
	}
	if best == nil || t.held.Has(i) || t.verifying.Has(i) || again && known && best.given == 0 {
		return 0, false
	}
	t.ask(best, i, now)
	return best.key, true
}

// compare orders possible sources: one that may be dead or useless comes last,
// and where another was asked without success, one that has given nothing yet; any
// other peer spares the origin, then the one with the least to do.
func (t *Table) compare(p, q *peer, now time.Duration, again bool) int {
	if q == nil {
		return -1
	}
	last := func(p, q bool) int {
		switch {
		case p == q:
			return 0
		case p:
			return 1
		}
		return -1
	}
	return cmp.Or(
		last(t.unfit(p, now), t.unfit(q, now)),
		last(again && p.given == 0, again && q.given == 0),
		last(p.kind == Origin, q.kind == Origin),
		len(p.asks)-len(q.asks),
	)
}

// debtor returns peer k and since when it owes us piece i, nil if it does not.
func (t *Table) debtor(k Key, i int) (p *peer, since time.Duration) {
	if p = t.byKey[k]; p != nil {
		for _, a := range p.asks {
			if a.piece == i {
				return p, a.since
			}
		}
	}
	return nil, 0
}

// Done notes that peer k has sent all that was asked of piece i.
func (t *Table) Done(k Key, i int, now time.Duration) {
	p, since := t.debtor(k, i)
	if p == nil {
		return
	}
	smooth(&p.latency, now-since)
	smooth(&p.service, now-max(since, p.done))
	smooth(&t.usual, now-since)
	p.done, p.beaten, p.rests = now, 0, 0
	smooth(&t.pace, now-t.last)
	smooth(&t.flow, now-max(t.last, t.began))
	t.last = now
	t.forget(p, i)
	t.gave(p)
	t.Progress(k, now)
}

// smooth moves an average a quarter of the way to a new value.
func smooth(avg *time.Duration, v time.Duration) {
	v = max(v, 1)
	if *avg == 0 {
		*avg = v
		return
	}
	*avg += (v - *avg) / 4
}

// Undone notes that peer k, asked for piece i, will not send it. It is not
// asked for the piece again before now + pause.
func (t *Table) Undone(k Key, i int, now, pause time.Duration) {
	p, _ := t.debtor(k, i)
	if p == nil {
		return
	}
	t.forget(p, i)
	if pause > 0 {
		p.refused[i] = now + pause
	}
	t.failed(p, now)
}

// Withdrawn notes that what peer k owes of piece i is not needed any more,
// because another was quicker. A peer that has been silent all the while, and
// owes nothing else, counts as stalled; one that is beaten again and again,
// because it sends a byte now and then, has to rest. Asked as before, either
// would hold up a reader at every piece.
func (t *Table) Withdrawn(k Key, i int, now time.Duration) {
	p, since := t.debtor(k, i)
	if p == nil {
		return
	}
	silent, late := t.silent(p, now), now-since > t.params.Hedge
	t.forget(p, i)
	switch {
	case silent && len(p.asks) == 0 && !p.stalled:
		t.lapse(p, now, func() { p.stalled = true })
	case late:
		const often, longest = 3, 30 * time.Second
		if p.beaten++; p.beaten >= often {
			p.rests = now + min(time.Second<<min(p.beaten-often, 5), longest)
		}
	}
}

// HaveDelay says how long the news that this node holds piece i may wait, so
// that more of its kind go to peer k at once: every message wakes up both
// ends. What no other node has, and k has not, is what many wait for.
func (t *Table) HaveDelay(k Key, i int) time.Duration {
	const longest = 250 * time.Millisecond
	if t.avail[i] == 0 {
		if p := t.byKey[k]; p == nil || p.has.Has(i) {
			return longest
		}
		return 0
	}
	// The saving is in pieces to a message, so a few are enough: news that is
	// older finds nobody who needs it, where nodes know each other in part.
	delay := min(time.Duration(len(t.peers))*8*time.Millisecond, longest)
	if t.pace > 0 {
		delay = min(delay, 8*t.pace)
	}
	return delay
}
