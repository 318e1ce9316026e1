package exchange

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/time/rate"
)

// Clock is what package rate takes for the time now.
func Clock(now time.Duration) time.Time { return time.Unix(0, int64(now)) }

// Rates are what so many addresses use of something; the zero value is empty.
type Rates map[netip.Addr]*rate.Limiter

// forgetLeast deletes an eighth of a map, for the next ones to have room: what has the
// least values, and always the same.
func forgetLeast[V any, N cmp.Ordered](m map[netip.Addr]V, value func(V) N) {
	all := slices.SortedFunc(maps.Keys(m), func(a, b netip.Addr) int {
		return cmp.Or(cmp.Compare(value(m[a]), value(m[b])), a.Compare(b))
	})
	for _, h := range all[:len(all)/8] {
		delete(m, h)
	}
}

// Of returns the limiter of a host, made with the limit and the burst when there is
// none. When there are too many, those that are at rest are forgotten, or else some that
// are near it.
func (rs *Rates) Of(host netip.Addr, now time.Duration, limit rate.Limit, burst int) *rate.Limiter {
	if r := (*rs)[host]; r != nil {
		return r
	}
	if *rs == nil {
		*rs = make(Rates)
	}
	if len(*rs) >= maxHosts {
		maps.DeleteFunc(*rs, func(_ netip.Addr, r *rate.Limiter) bool { return r.TokensAt(Clock(now)) >= float64(r.Burst()) })
	}
	if len(*rs) >= maxHosts {
		forgetLeast(*rs, func(r *rate.Limiter) float64 { return float64(r.Burst()) - r.TokensAt(Clock(now)) })
	}
	r := rate.NewLimiter(limit, burst)
	(*rs)[host] = r
	return r
}
