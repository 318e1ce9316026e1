package exchange

import (
	"maps"
	"net/netip"
	"time"

	"golang.org/x/time/rate"
)

// Clock is what package rate takes for the time now.
func Clock(now time.Duration) time.Time { return time.Unix(0, int64(now)) }

// Rates are what so many addresses use of something; the zero value is empty.
type Rates map[netip.Addr]*rate.Limiter

// Of returns the limiter of a host, made with the limit and the burst when there is
// none. For a new one those that are at rest are forgotten, and of the others as many
// as need be.
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
	for h := range *rs {
		if len(*rs) < maxHosts {
			break
		}
		delete(*rs, h)
	}
	r := rate.NewLimiter(limit, burst)
	(*rs)[host] = r
	return r
}
