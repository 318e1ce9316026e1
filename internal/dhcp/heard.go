package dhcp

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"viver.lan/internal/ether"
)

// Limits of what is remembered of others' words.
const (
	maxHeard  = 4096
	heardTime = 24 * time.Hour // after the last word of a machine
)

// heard is where other nodes say that machines live, one address for each. It
// is advice: whoever is on the link can say such things. So the first word of a
// machine and of an address stays as long as it is repeated, and some time
// after that; with no room left, nothing new is believed.
type heard struct {
	byMAC  map[ether.MAC]sighting
	byAddr owners
}

// sighting is where a machine lives, and when somebody last said so.
type sighting struct {
	addr netip.Addr
	last time.Time
}

func newHeard() heard {
	return heard{byMAC: make(map[ether.MAC]sighting), byAddr: make(owners)}
}

// expire forgets machines of which nobody has spoken for long.
func (h heard) expire(now time.Time) {
	for m, s := range h.byMAC {
		if now.Sub(s.last) > heardTime {
			delete(h.byMAC, m)
			delete(h.byAddr, s.addr)
		}
	}
}

// Hear takes what the members of the network say of where machines live, now or
// until they were switched off. A machine that this table has not met is then
// offered that address first, and no other machine is while there are others,
// so that boot hosts which give addresses one after the other agree also where
// two machines have one hash.
//
// It counts less than pins and than addresses that were given here, and nobody
// who uses an address on the link is refused it. Addresses that are not ours to
// give are ignored, and those that are said of two machines at once.
func (t *Leases) Hear(lives map[ether.MAC]netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	t.heard.expire(now)
	said := make(map[netip.Addr]int)
	for _, addr := range lives {
		said[addr]++
	}
	for _, m := range slices.SortedFunc(maps.Keys(lives), ether.MAC.Compare) {
		addr := lives[m]
		known, ok := t.heard.byMAC[m]
		switch {
		case ok && known.addr == addr:
			t.heard.byMAC[m] = sighting{addr, now}
		case ok, t.heard.byAddr.keep(addr, m), said[addr] > 1, len(t.heard.byMAC) >= maxHeard, !t.givable(addr):
		default:
			t.heard.byMAC[m], t.heard.byAddr[addr] = sighting{addr, now}, m
		}
	}
}

// givable reports whether addr is one of those this table gives.
func (t *Leases) givable(addr netip.Addr) bool {
	return assignable(t.pool, addr) && !t.reserved[addr]
}

// wishes are the addresses for a machine that has none here, the best first:
// where the members say it lives, then those of its hash, and of these last the
// ones where they say that others live, because no advice keeps a machine from
// booting.
func (t *Leases) wishes(m ether.MAC) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		if s, ok := t.heard.byMAC[m]; ok && !yield(s.addr) {
			return
		}
		for _, heed := range []bool{true, false} {
			for n := range maxAttempts {
				addr := Candidate(t.pool, m, n)
				if heed && t.heard.byAddr.keep(addr, m) {
					continue
				}
				if !yield(addr) {
					return
				}
			}
		}
	}
}
