package swarm

import (
	"net/netip"
	"time"
)

// rate is a token bucket: so much at once, and then so much a second. It is
// not safe for concurrent use.
type rate struct {
	perSecond, most float64
	left            float64
	at              time.Duration
}

func newRate(perSecond, most float64) *rate {
	return &rate{perSecond: perSecond, most: most, left: most}
}

func (r *rate) refill(now time.Duration) {
	r.left = min(r.left+r.perSecond*(now-r.at).Seconds(), r.most)
	r.at = now
}

// take takes n if that much is there.
func (r *rate) take(n float64, now time.Duration) bool {
	if r.refill(now); r.left < n {
		return false
	}
	r.left -= n
	return true
}

// owe takes n also when it is not there, and returns how long it takes until
// it is made up for.
func (r *rate) owe(n float64, now time.Duration) time.Duration {
	r.refill(now)
	if r.left -= n; r.left >= 0 {
		return 0
	}
	return time.Duration(-r.left / r.perSecond * float64(time.Second))
}

// full reports whether nothing was taken lately.
func (r *rate) full(now time.Duration) bool {
	r.refill(now)
	return r.left >= r.most
}

// forgetRates makes room among the rates of addresses: of those that are at
// rest all are forgotten, and of the others as many as need be.
func forgetRates(rates map[netip.Addr]*rate, now time.Duration) {
	for h, r := range rates {
		if r.full(now) {
			delete(rates, h)
		}
	}
	for h := range rates {
		if len(rates) < maxHosts {
			return
		}
		delete(rates, h)
	}
}
