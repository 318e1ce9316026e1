package swarm

import (
	"fmt"
	"net/netip"
	"testing"

	"viver.lan/internal/schedule"
)

// A node that knows many addresses leaves room for those who come later, and
// dials the first node whatever it knows.
func TestDialsEnough(t *testing.T) {
	for _, c := range []struct {
		contacts, peers, least, most int
		origin                       bool
	}{
		{contacts: 50, peers: 0, least: 16, most: 16},
		{contacts: 90, peers: 60, least: 16, most: 16},
		{contacts: 150, peers: 30, least: 10, most: 10},
		{contacts: 150, peers: 40},
		{contacts: 150, peers: 40, origin: true, least: 1, most: 1},
		{contacts: 150, peers: maxPeers, origin: true, least: 1, most: 1},
	} {
		s := &Swarm{contacts: map[netip.AddrPort]*contact{}, peers: map[schedule.Key]*peer{}}
		for n := range c.contacts {
			addr := netip.MustParseAddrPort(fmt.Sprintf("10.0.0.%d:6881", n+1))
			s.contacts[addr] = &contact{addr: addr, origin: c.origin && n == 0}
		}
		for k := range c.peers {
			s.peers[schedule.Key(k)] = &peer{outgoing: true}
		}
		if due := s.due(); len(due) < c.least || len(due) > c.most || c.origin && len(due) == 1 && !due[0].origin {
			t.Errorf("%+v: %d dialled", c, len(due))
		}
	}
}
