package dhcp

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"viver.lan/internal/ether"
)

// pins are the addresses that the operator gave to machines, one for each.
type pins struct {
	byMAC  map[ether.MAC]netip.Addr
	byAddr owners
}

// owners says to which machines addresses belong.
type owners map[netip.Addr]ether.MAC

// own reports whether addr belongs to the machine.
func (o owners) own(addr netip.Addr, m ether.MAC) bool {
	owner, ok := o[addr]
	return ok && owner == m
}

// keep reports whether addr belongs to another machine.
func (o owners) keep(addr netip.Addr, m ether.MAC) bool {
	owner, ok := o[addr]
	return ok && owner != m
}

// Pin sets the addresses that the operator gave to machines, in place of all
// that were set before. They lie anywhere in the host's network, also outside
// of the pool. From now on a pinned address is given to its machine only, and
// that machine is refused any other. Where one of them has to move, it does at
// its next request; as the old address of a machine is its own until it has
// moved, or to the end of its lease, the pin may have to wait.
//
// A pin that cannot be kept is ignored; what is returned says why.
func (t *Leases) Pin(network netip.Prefix, wanted map[ether.MAC]netip.Addr) (ignored []error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	users := make(map[netip.Addr][]ether.MAC)
	for _, m := range slices.SortedFunc(maps.Keys(wanted), func(a, b ether.MAC) int { return bytes.Compare(a[:], b[:]) }) {
		users[wanted[m]] = append(users[wanted[m]], m)
	}
	t.pins = pins{byMAC: make(map[ether.MAC]netip.Addr), byAddr: make(owners)}
	for _, addr := range slices.SortedFunc(maps.Keys(users), netip.Addr.Compare) {
		m := users[addr][0]
		if err := t.pinnable(network, addr, users[addr]); err != nil {
			ignored = append(ignored, err)
			continue
		}
		t.pins.byMAC[m], t.pins.byAddr[addr] = addr, m
		if o, ok := t.offers.get(addr, t.now()); ok && o.mac != m {
			t.offers.remove(addr)
		}
	}
	return ignored
}

// pinnable says why addr cannot be kept for the machines it is pinned to.
func (t *Leases) pinnable(network netip.Prefix, addr netip.Addr, users []ether.MAC) error {
	switch {
	case len(users) > 1:
		return fmt.Errorf("%s is reserved for %s and for %s: it is kept for none of them", addr, users[0], users[1])
	case !assignable(network.Masked(), addr):
		return fmt.Errorf("%s is reserved for %s, but is no address of a machine in %s", addr, users[0], network.Masked())
	case t.reserved[addr]:
		return fmt.Errorf("%s is reserved for %s, but belongs to this boot host or its router", addr, users[0])
	}
	return nil
}
