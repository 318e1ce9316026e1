package dhcp

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"viver.lan/internal/ether"
)

// When a foreign DHCP server counts as gone. All servers that answered are asked
// again while they are known, see dhcpwatch.ForeignWatch.
const (
	// foreignQuiet is how long nothing of it may be heard, and foreignMissed how
	// many broadcast questions it may leave unanswered meanwhile.
	foreignQuiet  = time.Minute
	foreignMissed = 4
	// foreignHidden is for a server that does not answer us, because it knows
	// registered machines only, but whose machine is there.
	foreignHidden = time.Hour
	maxForeign    = 32
)

// Foreign keeps account of the DHCP servers on a link that are not VIVER's. While
// there is one, no boot host gives addresses. Anybody on the link can
// claim to be one, so a claim only ever makes us answer less. It is safe for concurrent use.
type Foreign struct {
	self netip.Addr
	mac  ether.MAC
	now  func() time.Time

	mu      sync.Mutex
	servers map[netip.Addr]*foreignServer
	ours    map[netip.Addr]time.Time // boot hosts, and when they spoke last
}

// foreignServer is what is known of one server.
type foreignServer struct {
	last    time.Time // when something was heard of it
	missed  int       // questions it did not answer since
	answers bool      // it has answered us
	there   bool      // its machine was, at the last probe
}

// NewForeign returns an account for the boot host with this address.
func NewForeign(self netip.Addr, mac ether.MAC, now func() time.Time) *Foreign {
	return &Foreign{self: self, mac: mac, now: now, servers: make(map[netip.Addr]*foreignServer), ours: make(map[netip.Addr]time.Time)}
}

// Observe takes an observation, and reports whether it shows a server that was not
// known.
func (f *Foreign) Observe(s Observation) (news bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	switch {
	case s.Server == f.self:
		return false
	case s.Viver:
		delete(f.servers, s.Server) // a client named it before it answered itself
		if _, known := f.ours[s.Server]; known || len(f.ours) < maxForeign {
			f.ours[s.Server] = now
		}
		return false
	case !s.Spoken && now.Sub(f.ours[s.Server]) < foreignHidden:
		return false // meant for another boot host
	}
	server, known := f.servers[s.Server]
	if !known {
		if len(f.servers) >= maxForeign {
			return false // there are enough of them
		}
		server = &foreignServer{}
		f.servers[s.Server] = server
	}
	server.last, server.missed = now, 0
	server.answers = server.answers || s.Spoken && s.To == f.mac
	return !known
}

// Asked notes that all servers were asked for an address and the time for answers
// is over. It returns the servers that now count as gone.
func (f *Foreign) Asked() (gone []netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	for addr, s := range f.servers {
		s.missed++
		if s.gone(now.Sub(s.last)) {
			delete(f.servers, addr)
			gone = append(gone, addr)
		}
	}
	for addr, spoke := range f.ours {
		if now.Sub(spoke) >= foreignHidden {
			delete(f.ours, addr)
		}
	}
	slices.SortFunc(gone, netip.Addr.Compare)
	return gone
}

func (s *foreignServer) gone(silent time.Duration) bool {
	switch {
	case silent < foreignQuiet || s.missed < foreignMissed:
		return false
	case s.answers || !s.there:
		return true
	}
	return silent >= foreignHidden
}

// Hidden returns the servers that have been silent for a while and never answered
// us: probe whether their machines are there, and call Found.
func (f *Foreign) Hidden() (hidden []netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for addr, s := range f.servers {
		if !s.answers && s.missed > 0 {
			hidden = append(hidden, addr)
		}
	}
	slices.SortFunc(hidden, netip.Addr.Compare)
	return hidden
}

// Found says whether the machine with a server's address is there.
func (f *Foreign) Found(server netip.Addr, there bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s, ok := f.servers[server]; ok {
		s.there = there
	}
}

// Present reports whether there is any.
func (f *Foreign) Present() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.servers) > 0
}
