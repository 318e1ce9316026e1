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
	// Decline abandons an address that the machine found in use: nobody gets it
	// for an hour.
	Decline(ether.MAC, netip.Addr) error
	// NeedsProbe reports whether addr has to be probed before the machine gets it:
	// it is a free address that is new to the machine. For a minute after Probed
	// found it free it needs none.
	NeedsProbe(ether.MAC, netip.Addr) bool
	// Probed says who was found to use addr on the link, the zero MAC for nobody,
	// when it was about to be given to the machine. An address that another machine
	// uses is abandoned for an hour.
	Probed(m ether.MAC, addr netip.Addr, user ether.MAC)
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
// address is reserved for another. A lease counts less than a reservation and
// more than a hint. It is safe for concurrent use.
type Leases struct {
	pool     netip.Prefix
	excluded map[netip.Addr]bool
	now      func() time.Time

	mu           sync.Mutex
	byMAC        map[ether.MAC]*Lease
	byAddr       map[netip.Addr]*Lease
	reservations reservations
	hints        hints
	offers       ttlMap[offer]
	declined     ttlMap[ether.MAC] // by the machine that uses it, zero when it is not known
}

// offer is what is known of an address that nobody has taken yet.
type offer struct {
	mac  ether.MAC
	free bool // a probe found it free
	due  bool // the machine gets it, also when a hint gives it to another
}

var _ Table = (*Leases)(nil)

// NewLeases returns an empty table over the pool. Excluded addresses, the
// host's own among them, are never given.
func NewLeases(pool netip.Prefix, now func() time.Time, excluded ...netip.Addr) *Leases {
	t := &Leases{
		pool:     pool.Masked(),
		excluded: make(map[netip.Addr]bool),
		now:      now,
		byMAC:    make(map[ether.MAC]*Lease),
		byAddr:   make(map[netip.Addr]*Lease),
		hints:    newHints(),
		offers:   newTTLMap[offer](maxOffered, offerTime),
		declined: newTTLMap[ether.MAC](maxDeclined, declineTime),
	}
	for _, a := range excluded {
		t.excluded[a] = true
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
	for addr := range t.candidates(m) {
		if t.usable(m, addr, now) != nil || t.byAddr[addr] != nil {
			continue
		}
		o, ok := t.offers.get(addr, now)
		if ok && o.mac != m && (o.due || !t.hints.byAddr.heldBy(addr, m)) {
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
	if t.hints.byAddr.heldByOther(addr, m) && !t.reservations.byAddr.heldBy(addr, m) && !o.due {
		return fmt.Errorf("%s belongs to another machine, say the members", addr)
	}
	if t.byMAC[m] == nil && len(t.byMAC) >= maxBound && !t.evict(now) {
		return ErrFull
	}
	t.forget(t.byMAC[m]) // it moves, because of a reservation
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

// NeedsProbe implements Table.
func (t *Leases) NeedsProbe(m ether.MAC, addr netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if own, ok := t.own(m, now); ok && addr != own || t.holds(m, addr) {
		return false
	}
	o, ok := t.offers.get(addr, now)
	return !t.taken(m, addr, now) && t.usable(m, addr, now) == nil && (!ok || o.mac == m && !o.free)
}

// Probed implements Table.
func (t *Leases) Probed(m ether.MAC, addr netip.Addr, user ether.MAC) {
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

// own returns the address that a machine has to have: its reservation as soon as
// that can be used, until then the one that it holds.
func (t *Leases) own(m ether.MAC, now time.Time) (netip.Addr, bool) {
	if addr, ok := t.reservations.byMAC[m]; ok && t.usable(m, addr, now) == nil && !t.taken(m, addr, now) {
		return addr, true
	}
	if l := t.byMAC[m]; l != nil && !t.reservations.byAddr.heldByOther(l.Address, m) {
		return l.Address, true
	}
	return netip.Addr{}, false
}

func (t *Leases) holds(m ether.MAC, addr netip.Addr) bool {
	l := t.byMAC[m]
	return l != nil && l.Address == addr
}

// taken reports whether another machine has addr. A machine that has an address
// reserved for m may use it to the end of its lease.
func (t *Leases) taken(m ether.MAC, addr netip.Addr, now time.Time) bool {
	l := t.byAddr[addr]
	if l == nil || l.MAC == m {
		return false
	}
	return !t.reservations.byAddr.heldBy(addr, m) || !l.Expires.Before(now)
}

// usable says why addr cannot be given to a machine, apart from its present holder.
func (t *Leases) usable(m ether.MAC, addr netip.Addr, now time.Time) error {
	switch {
	case t.reservations.byAddr.heldByOther(addr, m):
		return fmt.Errorf("%s is reserved for another machine", addr)
	case t.reservations.byAddr.heldBy(addr, m): // Reserve has checked it
	case !t.pool.Contains(addr):
		return fmt.Errorf("%s is outside of %s", addr, t.pool)
	case t.excluded[addr] || !assignable(t.pool, addr):
		return fmt.Errorf("%s is not given to machines", addr)
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

// ttlMap is a bounded map whose entries expire; when it is full the oldest goes.
type ttlMap[V any] struct {
	max   int
	life  time.Duration
	order *list.List // of ttlEntry, oldest in front
	index map[netip.Addr]*list.Element
}

type ttlEntry[V any] struct {
	addr  netip.Addr
	value V
	until time.Time
}

func newTTLMap[V any](max int, life time.Duration) ttlMap[V] {
	return ttlMap[V]{max: max, life: life, order: list.New(), index: make(map[netip.Addr]*list.Element)}
}

func (s *ttlMap[V]) get(addr netip.Addr, now time.Time) (value V, ok bool) {
	e, ok := s.index[addr]
	if !ok {
		return value, false
	}
	entry := e.Value.(ttlEntry[V])
	if entry.until.Before(now) {
		s.remove(addr)
		return value, false
	}
	return entry.value, true
}

func (s *ttlMap[V]) put(addr netip.Addr, value V, now time.Time) {
	s.remove(addr)
	if s.order.Len() >= s.max {
		s.remove(s.order.Front().Value.(ttlEntry[V]).addr)
	}
	s.index[addr] = s.order.PushBack(ttlEntry[V]{addr, value, now.Add(s.life)})
}

func (s *ttlMap[V]) remove(addr netip.Addr) {
	if e, ok := s.index[addr]; ok {
		s.order.Remove(e)
		delete(s.index, addr)
	}
}
