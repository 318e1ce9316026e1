package tftp

import (
	"errors"
	"net/netip"
	"sync"
)

// errBusy goes to a client for which there is no place.
var errBusy = &Error{Other, "busy, try again"}

// errRepeated marks a request that is being answered.
var errRepeated = errors.New("repeated request")

// visit is one request: whose it is, and its bytes.
type visit struct {
	from   netip.AddrPort
	packet string
}

// place is that of a transfer.
type place struct{ visit visit }

// places are taken by transfers. Their number is bounded, for all clients together
// and for each address.
//
// A client that waits too long for its answer repeats its request. That takes no
// second place, and makes us send nothing: the transfer repeats its first packet
// by itself. A request that comes again when the client has answered is a new one.
type places struct {
	limits *Limits

	mu     sync.Mutex // guards the rest
	total  int
	taken  map[netip.Addr]int
	silent map[visit]*place // those whose client has not answered
}

func newPlaces(l *Limits) *places {
	return &places{limits: l, taken: make(map[netip.Addr]int), silent: make(map[visit]*place)}
}

// enter takes a place for a request, or tells why there is none.
func (p *places) enter(v visit) (*place, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	client := v.from.Addr()
	switch {
	case p.silent[v] != nil:
		return nil, errRepeated
	case p.total >= p.limits.Transfers || p.taken[client] >= p.limits.PerClient:
		return nil, errBusy
	}
	p.total++
	p.taken[client]++
	taken := &place{v}
	p.silent[v] = taken
	return taken, nil
}

// answered notes that the client has answered.
func (p *places) answered(by *place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unmark(by)
}

// leave gives a place back.
func (p *places) leave(left *place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unmark(left)
	client := left.visit.from.Addr()
	p.total--
	if p.taken[client]--; p.taken[client] == 0 {
		delete(p.taken, client)
	}
}

// unmark is called under the lock. Another transfer may have the same visit by now.
func (p *places) unmark(one *place) {
	if p.silent[one.visit] == one {
		delete(p.silent, one.visit)
	}
}
