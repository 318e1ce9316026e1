package schedule

import (
	"slices"
	"time"
)

// Who is late, silent or stalled: that is what a second peer is asked for.

// unfit reports whether p is only asked when nobody else can be.
func (t *Table) unfit(p *peer, now time.Duration) bool { return p.suspect || t.slack(p, now) }

// slack reports whether p is too slow or too silent to be asked for more.
func (t *Table) slack(p *peer, now time.Duration) bool { return now < p.rests || t.silent(p, now) }

// Progress notes that bytes of pieces came from peer k at the time at. One that
// was stalled remains suspect until it has sent a whole piece.
func (t *Table) Progress(k Key, at time.Duration) {
	p := t.byKey[k]
	if p == nil || at <= p.last {
		return
	}
	p.last = at
	if p.stalled {
		t.change(p, func() { p.stalled, p.suspect = false, true })
	}
}

// Alive notes that peer k said something other than piece data. A stalled
// peer that owes nothing any more gets another chance, with one piece.
func (t *Table) Alive(k Key, now time.Duration) {
	if p := t.byKey[k]; p != nil && p.stalled && len(p.asks) == 0 && now >= p.probe {
		t.change(p, func() { p.stalled, p.suspect = false, true })
	}
}

// Stalls finds peers that owe us data and are silent, notes them as stalled,
// and returns them with the time of their silence.
func (t *Table) Stalls(now time.Duration) map[Key]time.Duration {
	silent := make(map[Key]time.Duration)
	for _, p := range t.peers {
		quiet := p.quiet(now)
		if quiet <= t.stallAfter(p) {
			continue
		}
		silent[p.key] = quiet
		if !p.stalled {
			t.lapse(p, now, func() { p.stalled = true })
		}
	}
	return silent
}

// Stalled reports whether peer k is silent although it owes us data.
func (t *Table) Stalled(k Key) bool {
	p := t.byKey[k]
	return p != nil && p.stalled
}

// Late returns pieces that another peer should be asked for as well, because
// all that were asked are late, measured by what the peer usually takes. What
// nobody waits for is asked of two peers at most, or of a few more that have
// never given anything.
func (t *Table) Late(now time.Duration) []int {
	const untriedAskers = 4
	late := make(map[int]uint8) // peers that are late with the piece
	known := make(map[int]bool) // one of them has given something before
	for _, p := range t.peers {
		if !p.trusted() {
			continue
		}
		for _, a := range p.asks {
			if t.late(p, a, now) {
				late[a.piece]++
				if p.given > 0 {
					known[a.piece] = true
				}
			}
		}
	}
	var out []int
	for i, n := range late {
		if n == t.askers[i] && (n == 1 || n < untriedAskers && !known[i] || t.demanded.Has(i)) {
			out = append(out, i)
		}
	}
	slices.Sort(out) // the same decisions in every run
	return out
}

// late reports whether p should have sent what it was asked by now.
func (t *Table) late(p *peer, a ask, now time.Duration) bool {
	limit := t.patience(p)
	elapsed, quiet := now-a.since, now-max(p.last, a.since)
	if p.given == 0 && t.usual > 0 {
		return quiet > limit || elapsed > 4*limit
	}
	if t.demanded.Has(a.piece) {
		// Of a dead peer a reader must not notice more than a hiccup. But where
		// many share an uplink, a peer that lives is silent for most of the time
		// that a piece takes; to ask again then costs the link what it lacks.
		return elapsed > 2*limit || quiet > min(limit, max(2*t.params.Hedge, p.latency*3/2))
	}
	return elapsed > 4*limit || quiet > 2*limit
}

// silent reports whether p owes something and has sent nothing for so long
// that it may be dead.
func (t *Table) silent(p *peer, now time.Duration) bool { return p.quiet(now) > t.patience(p) }

// quiet is how long p has sent nothing although it owes something, 0 when it owes
// nothing.
func (p *peer) quiet(now time.Duration) time.Duration {
	if len(p.asks) == 0 {
		return 0
	}
	since := p.asks[0].since
	for _, a := range p.asks {
		since = min(since, a.since)
	}
	return now - max(p.last, since)
}

// patience is how long a piece may take p: twice what it usually does.
func (t *Table) patience(p *peer) time.Duration {
	if p.latency == 0 { // nothing measured yet
		return t.trial()
	}
	return max(t.params.Hedge, 2*p.latency)
}
