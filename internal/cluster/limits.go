package cluster

import (
	"net/netip"
	"time"
)

// rate allows so many events in each period.
type rate struct {
	limit  int
	period time.Duration
	began  time.Time // the present period
	used   int
}

func (r *rate) allow(now time.Time) bool {
	if now.Sub(r.began) >= r.period {
		r.began, r.used = now, 0
	}
	r.used++
	return r.used <= r.limit
}

// maxSources bounds the addresses that are counted at a time.
const maxSources = 4096

// perSecond counts the events of the present second, in all and by the address
// that causes them.
type perSecond struct {
	began time.Time
	all   int
	by    map[netip.Addr]int
}

// advance begins to count again when a second has passed.
func (p *perSecond) advance(now time.Time) {
	if now.Sub(p.began) >= time.Second {
		p.began, p.all, p.by = now, 0, make(map[netip.Addr]int)
	}
}

func (p *perSecond) add(from netip.Addr) {
	p.all++
	if _, counted := p.by[from]; counted || len(p.by) < maxSources {
		p.by[from]++
	}
}
