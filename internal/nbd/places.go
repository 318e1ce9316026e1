package nbd

import (
	"context"
	"net"
	"net/netip"
	"sync"
)

// Bounds of a listening server's clients. Those on a unix socket are this
// machine's own: they count as one host that may have all places.
const (
	maxConnections = 64
	// maxPerHost is how many connections one address may have. nbdcopy and qemu
	// open up to eight.
	maxPerHost = 16
	// maxGreeting is how many of all may not have chosen an export yet.
	maxGreeting = 16
)

// places are the connections of a listening server. When there are too many, one that
// has not chosen an export yet is closed, first one of the address that has the most
// connections; else the newest connection of an address that has more than the new
// client's. If there is neither, the new client waits.
type places struct {
	mu    sync.Mutex
	taken []*place // in order of arrival
	freed chan struct{}
}

type place struct {
	conn     net.Conn
	host     netip.Addr // not valid on a unix socket
	greeting bool
	leaving  bool
}

func newPlaces() *places { return &places{freed: make(chan struct{}, 1)} }

// enter finds a place for conn. It waits for one as long as ctx lives, and
// returns nil when conn gets none.
func (ps *places) enter(ctx context.Context, conn net.Conn) *place {
	p := &place{conn: conn, greeting: true}
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		p.host = a.AddrPort().Addr().Unmap()
	}
	for {
		entered, wait := ps.try(p)
		switch {
		case entered:
			return p
		case !wait:
			return nil
		}
		select {
		case <-ps.freed:
		case <-ctx.Done():
			return nil
		}
	}
}

// try takes a place for p, or tells whether waiting for one makes sense.
func (ps *places) try(p *place) (entered, wait bool) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	hosts := make(map[netip.Addr]int)
	all, greeting := 0, 0
	for _, q := range ps.taken {
		if q.leaving {
			continue
		}
		all++
		hosts[q.host]++
		if q.greeting {
			greeting++
		}
	}
	switch {
	case p.host.IsValid() && hosts[p.host] >= maxPerHost:
		if !ps.evict(func(q *place) bool { return q.greeting && q.host == p.host }, hosts) {
			return false, false
		}
	case greeting >= maxGreeting || all >= maxConnections:
		greets := func(q *place) bool { return q.greeting }
		crowds := func(q *place) bool { return hosts[q.host] > hosts[p.host]+1 }
		if p.host.IsValid() && !ps.evict(greets, hosts) && !ps.evict(crowds, hosts) || !p.host.IsValid() && all >= maxConnections {
			return false, true
		}
	}
	if len(ps.taken) >= 2*maxConnections { // those that were told to leave take their time
		return false, true
	}
	ps.taken = append(ps.taken, p)
	return true, false
}

// evict closes one of the connections that may go: of the host that has the
// most, the one that greets for longest, or else the newest.
func (ps *places) evict(may func(*place) bool, hosts map[netip.Addr]int) bool {
	var out *place
	for _, q := range ps.taken {
		if q.leaving || !may(q) {
			continue
		}
		if out == nil || hosts[q.host] > hosts[out.host] || hosts[q.host] == hosts[out.host] && !q.greeting {
			out = q
		}
	}
	if out == nil {
		return false
	}
	out.leaving = true
	out.conn.Close()
	return true
}

// greeted says that p has chosen an export.
func (ps *places) greeted(p *place) {
	ps.mu.Lock()
	p.greeting = false
	ps.mu.Unlock()
	ps.free()
}

// leave gives p's place back.
func (ps *places) leave(p *place) {
	ps.mu.Lock()
	for n, q := range ps.taken {
		if q == p {
			ps.taken = append(ps.taken[:n], ps.taken[n+1:]...)
			break
		}
	}
	ps.mu.Unlock()
	ps.free()
}

func (ps *places) free() {
	select {
	case ps.freed <- struct{}{}:
	default:
	}
}
