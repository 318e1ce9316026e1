package schedule

import "time"

// What a peer says of itself plans nothing here: a peer that does not do what
// it is asked to is suspect. A suspect is no owner and no holder, what it owes
// is asked of others at once, and it is asked for one piece now and then: who
// gives it is like any other again. Each time it lapses it waits longer.

const (
	// credulity is how many more pieces than it gave a peer may fail to give.
	credulity = 4
	// maxCredit bounds how much of what a peer gave speaks for it: one that
	// gave much and then stops is found out as quickly.
	maxCredit = 8
	// regain is how many pieces given make up for one lapse.
	regain = 16
	// A suspect is asked again after firstProbe, doubled with each lapse up to
	// lastProbe. The origin may be the only source there is, and it rejects
	// what others are to pass on.
	firstProbe, lastProbe = 250 * time.Millisecond, 16 * time.Second
	originProbe           = 500 * time.Millisecond
	// originFuse is how long the origin may reject everything before that
	// counts.
	originFuse = time.Second
)

// trusted reports whether p does what it is asked to, as far as is known.
func (p *peer) trusted() bool { return !p.stalled && !p.suspect }

// Trusted reports whether peer k is to be planned with: it is neither silent
// although it owes something nor has it failed since it last gave a piece.
func (t *Table) Trusted(k Key) bool {
	p := t.byKey[k]
	return p != nil && p.trusted()
}

// Suspect says that there is reason to wait for a first piece of peer k before
// anything is planned with it.
func (t *Table) Suspect(k Key, now time.Duration) {
	if p := t.byKey[k]; p != nil && !p.suspect {
		t.lapse(p, now, func() { p.suspect = true })
	}
}

// Given returns how many pieces peer k has sent.
func (t *Table) Given(k Key) int {
	if p := t.byKey[k]; p != nil {
		return p.given
	}
	return 0
}

// lapse applies f, by which p loses its standing, and says when p is asked
// again.
func (t *Table) lapse(p *peer, now time.Duration, f func()) {
	t.change(p, f)
	pause := min(firstProbe<<min(p.lapses, 10), lastProbe)
	if p.kind == Origin {
		pause = min(pause, originProbe)
	}
	p.lapses++
	p.probe = now + pause
	p.credit = 0
}

// gave notes that p has sent a piece.
func (t *Table) gave(p *peer) {
	if p.given == 0 && p.trusted() {
		t.untried -= len(p.asks)
	}
	p.given++
	p.credit = min(p.credit+1, maxCredit)
	if p.given%regain == 0 && p.lapses > 0 {
		p.lapses--
	}
	if p.suspect || p.stalled {
		t.change(p, func() { p.suspect, p.stalled = false, false })
	}
}

// failed notes that p did not send a piece that it said it has.
func (t *Table) failed(p *peer, now time.Duration) {
	switch {
	case p.stalled: // it has no standing to lose
	case p.suspect:
		t.lapse(p, now, func() {})
	case p.credit > -credulity+1:
		p.credit--
	case p.kind != Origin || now-p.done > originFuse:
		t.lapse(p, now, func() { p.suspect = true })
	}
}

// mayBeAsked reports whether something that nobody waits for may be asked of p
// now.
func (p *peer) mayBeAsked(now time.Duration) bool {
	return !p.suspect || len(p.asks) == 0 && now >= p.probe
}

// trial is how long a peer that has given nothing yet may be silent before
// somebody else is asked too: a few times what others take.
func (t *Table) trial() time.Duration {
	const least = 200 * time.Millisecond
	if t.usual == 0 {
		return 2 * t.params.Hedge
	}
	return min(max(4*t.usual, least), 2*t.params.Hedge)
}

// stallAfter is the silence after which p counts as stalled.
func (t *Table) stallAfter(p *peer) time.Duration {
	if p.given == 0 && t.usual > 0 {
		return min(max(4*t.usual, t.params.Stall/2), t.params.Stall)
	}
	return max(t.params.Stall, 4*p.latency)
}

// quicker reports whether the origin p alone would send faster than all
// others together do now.
func (t *Table) quicker(p *peer, now time.Duration) bool {
	if t.inflight == 0 {
		return false
	}
	alone := p.service
	if alone == 0 {
		alone = t.params.Hedge / 8
	}
	return max(t.flow, now-max(t.last, t.began)) > alone
}
