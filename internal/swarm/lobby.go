package swarm

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

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
	opening []*opening     // in order of arrival
	rates   exchange.Rates // of connecting
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
	if !l.rates.Of(host, now, arrivalsPerSecond, arrivals).AllowN(exchange.Clock(now), 1) {
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

// leave says that the handshake is over, or given up.
func (l *lobby) leave(o *opening) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opening = slices.DeleteFunc(l.opening, func(x *opening) bool { return x == o })
}
