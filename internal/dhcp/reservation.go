package dhcp

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"viver.lan/internal/ether"
)

// reservations are the addresses that the operator gave to machines, one for each.
type reservations struct {
	byMAC  map[ether.MAC]netip.Addr
	byAddr owners
}

// owners says to which machines addresses belong.
type owners map[netip.Addr]ether.MAC

// heldBy reports whether addr belongs to the machine.
func (o owners) heldBy(addr netip.Addr, m ether.MAC) bool {
	owner, ok := o[addr]
	return ok && owner == m
}

// heldByOther reports whether addr belongs to another machine.
func (o owners) heldByOther(addr netip.Addr, m ether.MAC) bool {
	owner, ok := o[addr]
	return ok && owner != m
}

// Reserve sets the addresses that the operator gave to machines; they replace all
// earlier reservations. They may be anywhere in the host's network, also outside
// of the pool. From now on a reserved address is given to its machine only, and
// that machine is refused any other. A machine that has to move does so at its
// next request. As its old address stays its own until it has moved, or until its
// lease ends, a reservation may have to wait.
//
// A reservation that cannot be used is ignored; the errors say why.
func (t *Leases) Reserve(network netip.Prefix, wanted map[ether.MAC]netip.Addr) (ignored []error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	users := make(map[netip.Addr][]ether.MAC)
	for _, m := range slices.SortedFunc(maps.Keys(wanted), ether.MAC.Compare) {
		users[wanted[m]] = append(users[wanted[m]], m)
	}
	t.reservations = reservations{byMAC: make(map[ether.MAC]netip.Addr), byAddr: make(owners)}
	for _, addr := range slices.SortedFunc(maps.Keys(users), netip.Addr.Compare) {
		m := users[addr][0]
		if err := t.checkReservation(network, addr, users[addr]); err != nil {
			ignored = append(ignored, err)
			continue
		}
		t.reservations.byMAC[m], t.reservations.byAddr[addr] = addr, m
		if o, ok := t.offers.get(addr, t.now()); ok && o.mac != m {
			t.offers.remove(addr)
		}
	}
	return ignored
}

// checkReservation says why addr cannot be reserved for these machines.
func (t *Leases) checkReservation(network netip.Prefix, addr netip.Addr, users []ether.MAC) error {
	switch {
	case len(users) > 1:
		return fmt.Errorf("%s is reserved for %s and for %s: none of them gets it", addr, users[0], users[1])
	case !assignable(network.Masked(), addr):
		return fmt.Errorf("%s is reserved for %s, but is no address of a machine in %s", addr, users[0], network.Masked())
	case t.excluded[addr]:
		return fmt.Errorf("%s is reserved for %s, but belongs to this boot host or its router", addr, users[0])
	}
	return nil
}
