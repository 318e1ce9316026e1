package dhcp

import (
	"cmp"
	"container/list"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"viver.lan/internal/ether"
)

// Table knows which machine holds which address.
type Table interface {
	// Find returns the machine's address: the one it has or shall have, else a
	// free one, the same one each time it is asked soon again.
	Find(ether.MAC) (netip.Addr, error)
	// Bind gives the machine addr for the time of a lease. It fails with an
	// error for the client when addr is another's or not to be given, and
	// with ErrFull when the table has no room.
	Bind(m ether.MAC, addr netip.Addr, lease time.Duration) error
	// Holds reports whether addr was given to the machine and is still its own.
	Holds(m ether.MAC, addr netip.Addr) bool
	// Decline sets aside an address that the machine found in use.
	Decline(ether.MAC, netip.Addr) error
	// Known reports whether the machine may have addr, or must not, without a
	// look at the link. It is false for a free address that is new to the
	// machine, and true for a minute after Looked found it free.
	Known(ether.MAC, netip.Addr) bool
	// Looked says who was found to use addr on the link, the zero MAC for nobody,
	// when it was about to be given to the machine. What another one uses is set
	// aside.
	Looked(m ether.MAC, addr netip.Addr, user ether.MAC)
}

// ErrFull says that the table holds as many machines as it is allowed to.
var ErrFull = errors.New("the address table is full")

// Limits of the in-memory table. Offers are cheap to cause, so they are few
// and short-lived; a flood of them pushes out only other offers.
const (
	maxBound    = 16384
	maxOffered  = 1024
	maxDeclined = 256
	offerTime   = time.Minute
	declineTime = time.Hour
	maxAttempts = 64 // candidates tried for one machine
)

// Lease is an address and the machine that holds it.
type Lease struct {
	MAC     ether.MAC  `json:"mac"`
	Address netip.Addr `json:"address"`
	Expires time.Time  `json:"expires"`
}

// Leases is the table in memory. A machine keeps its address after the lease
// has run out, until the table is full and the place is needed, or until the
// address is pinned to another. What it has here counts less than a pin and
// more than what others say (Hear). It is safe for concurrent use.
type Leases struct {
	pool     netip.Prefix
	reserved map[netip.Addr]bool
	now      func() time.Time

	mu       sync.Mutex
	byMAC    map[ether.MAC]*Lease
	byAddr   map[netip.Addr]*Lease
	pins     pins
	heard    heard
	offers   aside[offer]
	declined aside[ether.MAC] // by the machine that uses it, zero when it is not known
}

// offer is what is known of an address that nobody has taken yet.
type offer struct {
	mac  ether.MAC
	free bool // the link was asked
	due  bool // the machine gets it, whoever else is said to live there
}

var _ Table = (*Leases)(nil)

// NewLeases returns an empty table over the pool. Reserved addresses, the
// host's own among them, are never given.
func NewLeases(pool netip.Prefix, now func() time.Time, reserved ...netip.Addr) *Leases {
	t := &Leases{
		pool:     pool.Masked(),
		reserved: make(map[netip.Addr]bool),
		now:      now,
		byMAC:    make(map[ether.MAC]*Lease),
		byAddr:   make(map[netip.Addr]*Lease),
		heard:    newHeard(),
		offers:   newAside[offer](maxOffered, offerTime),
		declined: newAside[ether.MAC](maxDeclined, declineTime),
	}
	for _, a := range reserved {
		t.reserved[a] = true
	}
	return t
}

// Find implements Table.
func (t *Leases) Find(m ether.MAC) (netip.Addr, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if addr, ok := t.own(m, now); ok {
		return addr, nil
	}
	for addr := range t.wishes(m) {
		if t.usable(m, addr, now) != nil || t.byAddr[addr] != nil {
			continue
		}
		o, ok := t.offers.get(addr, now)
		if ok && o.mac != m && (o.due || !t.heard.byAddr.own(addr, m)) {
			continue
		}
		t.offers.put(addr, offer{mac: m, free: o.mac == m && o.free, due: true}, now)
		return addr, nil
	}
	return netip.Addr{}, fmt.Errorf("%w: no free address for %s in %s", ErrFull, m, t.pool)
}

// Bind implements Table. The machine's own address is always confirmed; one
// that has none yet may take any free address of the pool, because it may
// remember it from a host that is gone.
func (t *Leases) Bind(m ether.MAC, addr netip.Addr, lease time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	own, ok := t.own(m, now)
	if ok && addr != own {
		return fmt.Errorf("%s is not yours, %s is", addr, own)
	}
	if l := t.byMAC[m]; ok && l != nil && l.Address == addr {
		l.Expires = now.Add(lease)
		return nil
	}
	if err := t.usable(m, addr, now); err != nil {
		return err
	}
	if t.taken(m, addr, now) {
		return fmt.Errorf("%s belongs to another machine", addr)
	}
	o, ok := t.offers.get(addr, now)
	if ok && o.mac != m {
		return fmt.Errorf("%s is being given to another machine", addr)
	}
	if t.heard.byAddr.keep(addr, m) && !t.pins.byAddr.own(addr, m) && !o.due {
		return fmt.Errorf("%s belongs to another machine, as the members say", addr)
	}
	if t.byMAC[m] == nil && len(t.byMAC) >= maxBound && !t.evict(now) {
		return ErrFull
	}
	t.forget(t.byMAC[m]) // it moves, because of a pin
	t.forget(t.byAddr[addr])
	l := &Lease{MAC: m, Address: addr, Expires: now.Add(lease)}
	t.byMAC[m], t.byAddr[addr] = l, l
	t.offers.remove(addr)
	return nil
}

// Decline implements Table.
func (t *Leases) Decline(m ether.MAC, addr netip.Addr) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	held := t.holds(m, addr)
	if o, ok := t.offers.get(addr, now); !held && (!ok || o.mac != m) {
		return fmt.Errorf("%s declined, but it was not given to %s", addr, m)
	}
	if held {
		t.forget(t.byMAC[m])
	}
	t.offers.remove(addr)
	t.declined.put(addr, ether.MAC{}, now)
	return nil
}

// Known implements Table.
func (t *Leases) Known(m ether.MAC, addr netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if own, ok := t.own(m, now); ok && addr != own || t.holds(m, addr) {
		return true
	}
	o, ok := t.offers.get(addr, now)
	return t.taken(m, addr, now) || t.usable(m, addr, now) != nil || ok && (o.mac != m || o.free)
}

// Looked implements Table.
func (t *Leases) Looked(m ether.MAC, addr netip.Addr, user ether.MAC) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	o, ok := t.offers.get(addr, now)
	if t.holds(m, addr) || t.taken(m, addr, now) || t.usable(m, addr, now) != nil || ok && o.mac != m {
		return // it was given or refused meanwhile
	}
	if user == m || user == (ether.MAC{}) {
		t.offers.put(addr, offer{mac: m, free: true, due: o.due || user == m}, now)
		return
	}
	t.offers.remove(addr)
	t.declined.put(addr, user, now)
}

// Holds implements Table.
func (t *Leases) Holds(m ether.MAC, addr netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	own, ok := t.own(m, t.now())
	return ok && own == addr && t.holds(m, addr)
}

// List returns the leases in the order of their addresses.
func (t *Leases) List() []Lease {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Lease, 0, len(t.byMAC))
	for _, l := range t.byMAC {
		all = append(all, *l)
	}
	slices.SortFunc(all, func(a, b Lease) int { return a.Address.Compare(b.Address) })
	return all
}

// own returns the address that a machine has to have: its pin as soon as it is
// to be had, until then the one that it holds.
func (t *Leases) own(m ether.MAC, now time.Time) (netip.Addr, bool) {
	if pin, ok := t.pins.byMAC[m]; ok && t.usable(m, pin, now) == nil && !t.taken(m, pin, now) {
		return pin, true
	}
	if l := t.byMAC[m]; l != nil && !t.pins.byAddr.keep(l.Address, m) {
		return l.Address, true
	}
	return netip.Addr{}, false
}

func (t *Leases) holds(m ether.MAC, addr netip.Addr) bool {
	l := t.byMAC[m]
	return l != nil && l.Address == addr
}

// taken reports whether another machine has addr. Whoever has what is pinned
// to m may use it to the end of the lease.
func (t *Leases) taken(m ether.MAC, addr netip.Addr, now time.Time) bool {
	l := t.byAddr[addr]
	if l == nil || l.MAC == m {
		return false
	}
	return !t.pins.byAddr.own(addr, m) || !l.Expires.Before(now)
}

// usable says why addr cannot be given to a machine, whoever holds it.
func (t *Leases) usable(m ether.MAC, addr netip.Addr, now time.Time) error {
	switch {
	case t.pins.byAddr.keep(addr, m):
		return fmt.Errorf("%s is kept for another machine", addr)
	case t.pins.byAddr.own(addr, m): // Pin has checked it
	case !t.pool.Contains(addr):
		return fmt.Errorf("%s is outside of %s", addr, t.pool)
	case t.reserved[addr] || !assignable(t.pool, addr):
		return fmt.Errorf("%s is reserved", addr)
	}
	if user, ok := t.declined.get(addr, now); ok && user != m {
		return fmt.Errorf("%s is used by another machine", addr)
	}
	return nil
}

// evict forgets the lease that ran out longest ago, if any did.
func (t *Leases) evict(now time.Time) bool {
	var oldest *Lease
	for _, l := range t.byMAC {
		if l.Expires.Before(now) && (oldest == nil || cmp.Or(
			l.Expires.Compare(oldest.Expires), l.Address.Compare(oldest.Address)) < 0) {
			oldest = l
		}
	}
	if oldest == nil {
		return false
	}
	t.forget(oldest)
	return true
}

func (t *Leases) forget(l *Lease) {
	if l == nil {
		return
	}
	delete(t.byMAC, l.MAC)
	delete(t.byAddr, l.Address)
}

// aside is a bounded set of addresses with a note each, where the oldest
// leaves first and all leave in time.
type aside[V any] struct {
	max   int
	life  time.Duration
	order *list.List // of asideEntry, oldest in front
	index map[netip.Addr]*list.Element
}

type asideEntry[V any] struct {
	addr  netip.Addr
	value V
	until time.Time
}

func newAside[V any](max int, life time.Duration) aside[V] {
	return aside[V]{max: max, life: life, order: list.New(), index: make(map[netip.Addr]*list.Element)}
}

func (s *aside[V]) get(addr netip.Addr, now time.Time) (value V, ok bool) {
	e, ok := s.index[addr]
	if !ok {
		return value, false
	}
	entry := e.Value.(asideEntry[V])
	if entry.until.Before(now) {
		s.remove(addr)
		return value, false
	}
	return entry.value, true
}

func (s *aside[V]) put(addr netip.Addr, value V, now time.Time) {
	s.remove(addr)
	if s.order.Len() >= s.max {
		s.remove(s.order.Front().Value.(asideEntry[V]).addr)
	}
	s.index[addr] = s.order.PushBack(asideEntry[V]{addr, value, now.Add(s.life)})
}

func (s *aside[V]) remove(addr netip.Addr) {
	if e, ok := s.index[addr]; ok {
		s.order.Remove(e)
		delete(s.index, addr)
	}
}
