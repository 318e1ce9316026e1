package dhcp

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
	"time"

	"viver.lan/internal/ether"
)

// Limits of the hints that are remembered.
const (
	maxHints = 4096
	hintTime = 24 * time.Hour // after the last hint about a machine
)

// hints are the addresses that other nodes say machines have, one for each. They
// are advice: anybody on the link can give them. So the first hint about a machine
// and about an address stays as long as it is repeated, and some time after that;
// when the table is full, new ones are ignored.
type hints struct {
	byMAC  map[ether.MAC]hint
	byAddr owners
}

// hint is the address of a machine, and when it was last confirmed.
type hint struct {
	addr netip.Addr
	last time.Time
}

func newHints() hints {
	return hints{byMAC: make(map[ether.MAC]hint), byAddr: make(owners)}
}

// expire forgets machines about which there was no hint for long.
func (h hints) expire(now time.Time) {
	for m, s := range h.byMAC {
		if now.Sub(s.last) > hintTime {
			delete(h.byMAC, m)
			delete(h.byAddr, s.addr)
		}
	}
}

// AddHints takes the addresses that the members of the network say machines have,
// or had until they were switched off. A machine that is new to this table is then
// offered that address first, and no other machine is offered it while there are
// others. So boot hosts that serve one after the other agree also when two machines
// have the same hash.
//
// A hint counts less than a reservation and than an address that was given here, and
// a machine that uses an address on the link is not refused it. Addresses that this
// table does not give are ignored, and those that are said of two machines at once.
func (t *Leases) AddHints(addresses map[ether.MAC]netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	t.hints.expire(now)
	users := make(map[netip.Addr]int)
	for _, addr := range addresses {
		users[addr]++
	}
	for _, m := range slices.SortedFunc(maps.Keys(addresses), ether.MAC.Compare) {
		addr := addresses[m]
		known, ok := t.hints.byMAC[m]
		switch {
		case ok && known.addr == addr:
			t.hints.byMAC[m] = hint{addr, now}
		case ok, t.hints.byAddr.heldByOther(addr, m), users[addr] > 1, len(t.hints.byMAC) >= maxHints, !t.givable(addr):
		default:
			t.hints.byMAC[m], t.hints.byAddr[addr] = hint{addr, now}, m
		}
	}
}

// givable reports whether addr is one of those this table gives.
func (t *Leases) givable(addr netip.Addr) bool {
	return assignable(t.pool, addr) && !t.excluded[addr]
}

// candidates are the addresses for a machine that has none here, the best first:
// the one of its hint, then those of its hash, and of these the ones that hints give
// to other machines last, because no hint keeps a machine from booting.
func (t *Leases) candidates(m ether.MAC) iter.Seq[netip.Addr] {
	return func(yield func(netip.Addr) bool) {
		if s, ok := t.hints.byMAC[m]; ok && !yield(s.addr) {
			return
		}
		for _, skipHinted := range []bool{true, false} {
			for n := range maxAttempts {
				addr := Candidate(t.pool, m, n)
				if skipHinted && t.hints.byAddr.heldByOther(addr, m) {
					continue
				}
				if !yield(addr) {
					return
				}
			}
		}
	}
}
