package exchange

import (
	"slices"

	"viver.lan/internal/schedule"
	"viver.lan/internal/swarm/wire"
)

// Want says which of the pieces from lo up to hi shall be fetched when there is
// nothing better to do.
func (x *Exchange) Want(lo, hi int, want func(i int) bool) {
	changed := false
	for i := max(lo, 0); i < min(hi, x.cfg.Image.Pieces); i++ {
		_, paused := x.paused[i]
		switch w := want(i); {
		case !w:
			delete(x.paused, i)
			x.table.Want(i, false)
		case !paused && !x.table.Wanted(i):
			x.table.Want(i, true)
			changed = true
		}
	}
	if changed {
		x.fillAll()
	}
}

// Demand says whether somebody waits for piece i: it is asked for at once and
// before all others.
func (x *Exchange) Demand(i int, demand bool) {
	x.table.Demand(i, demand)
	n := slices.Index(x.demanded, i)
	if !demand {
		if n >= 0 {
			x.demanded = slices.Delete(x.demanded, n, n+1)
		}
		return
	}
	if n < 0 {
		x.demanded = append(x.demanded, i)
	}
	asked, _ := x.table.Asked(i)
	for _, k := range asked {
		x.hint(x.byKey[k], i)
	}
	if len(asked) == 0 {
		x.seek(i, true)
	}
}

// SetPlayhead tells at which piece this node reads.
func (x *Exchange) SetPlayhead(i int) { x.table.SetPlayhead(i) }

// Held returns the set of pieces that this node holds; it must not be changed.
func (x *Exchange) Held() *schedule.Set { return x.table.Held() }

// SetHeld says whether piece i is held, although no peer has brought it; peers are
// told (of a loss by BEP 54).
func (x *Exchange) SetHeld(i int, held bool) {
	switch was := x.table.Held().Has(i); {
	case held && !was:
		x.table.SetHeld(i, true)
		x.announce(i)
	case was && !held:
		x.table.SetHeld(i, false)
		for _, p := range x.peers {
			p.sayHint(p.hello.M.DontHave, i)
		}
	}
}

// announce tells all peers that piece i can be had here, some of them a
// little later.
func (x *Exchange) announce(i int) {
	complete := x.table.Complete()
	var now, later []schedule.Key
	for _, p := range x.peers {
		if delay := x.table.HaveDelay(p.key, i); delay > 0 {
			later = append(later, p.key)
			x.wakeWithin(delay)
		} else {
			now = append(now, p.key)
		}
	}
	for _, a := range []Announce{{i, now, false}, {i, later, true}} {
		if len(a.To) > 0 {
			x.do(a)
		}
	}
	for _, p := range x.peers {
		// libtorrent that had requests rejected and now has none left does not
		// ask on a Have, only when it is told that it may.
		if p.refused && len(p.queue)+p.taken == 0 {
			p.say(wire.Message{Type: wire.Unchoke})
		}
		if complete && p.interested {
			p.interested = false
			p.say(wire.Message{Type: wire.NotInterested})
		}
	}
}
