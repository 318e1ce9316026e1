package swarm

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"viver.lan/internal/exchange"
)

const (
	// maxOpening bounds the incoming connections that have not shaken hands
	// yet, maxOpeningHost those of one address among them.
	maxOpening     = 64
	maxOpeningHost = 8
	// An address may connect arrivals times at once and arrivalsPerSecond on.
	arrivals          = 64
	arrivalsPerSecond = 16
)

// lobby is where incoming connections are until they have shaken hands. There
// is always room for one more: of the address that has the most there, the one
// that has been there longest has to go.
type lobby struct {
	mu      sync.Mutex
	opening []*opening // in order of arrival
	rates   map[netip.Addr]*rate.Limiter
}

type opening struct {
	conn net.Conn
	host netip.Addr
}

// enter takes a connection in, or reports false when its address connects too
// often. Whoever enters has to leave.
func (l *lobby) enter(conn net.Conn, host netip.Addr, now time.Duration) (o *opening, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.inTime(host, now) {
		return nil, false
	}
	counts := make(map[netip.Addr]int)
	for _, o := range l.opening {
		counts[o.host]++
	}
	full := host
	if counts[host] < maxOpeningHost {
		full = netip.Addr{}
		for h, n := range counts {
			if len(l.opening) >= maxOpening && n > counts[full] {
				full = h
			}
		}
	}
	if n := slices.IndexFunc(l.opening, func(o *opening) bool { return o.host == full }); n >= 0 {
		l.opening[n].conn.Close()
		l.opening = slices.Delete(l.opening, n, n+1)
	}
	o = &opening{conn, host}
	l.opening = append(l.opening, o)
	return o, true
}

// inTime reports whether an address may connect once more now.
func (l *lobby) inTime(host netip.Addr, now time.Duration) bool {
	if l.rates == nil {
		l.rates = make(map[netip.Addr]*rate.Limiter)
	}
	r := l.rates[host]
	if r == nil {
		if len(l.rates) >= exchange.MaxHosts {
			exchange.ForgetRates(l.rates, now)
		}
		r = rate.NewLimiter(arrivalsPerSecond, arrivals)
		l.rates[host] = r
	}
	return r.AllowN(exchange.Clock(now), 1)
}

// leave says that the handshake is over, or given up.
func (l *lobby) leave(o *opening) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opening = slices.DeleteFunc(l.opening, func(x *opening) bool { return x == o })
}
