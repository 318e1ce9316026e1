package cluster

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/hashicorp/memberlist"

	"viver.lan/internal/contain"
	"viver.lan/internal/event"
	"viver.lan/internal/identity"
)

// delegate is what memberlist calls. It calls with its own lock held, so
// nothing here may call memberlist or block; and it reuses its nodes, so they
// are copied. What panics here does so in memberlist's goroutines, so each call
// contains it.
type delegate struct{ c *Cluster }

// NodeMeta implements memberlist.Delegate.
func (d *delegate) NodeMeta(limit int) []byte {
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	d.c.sequence++
	b := d.c.meta.sign(d.c.cfg.Key, d.c.addr, d.c.sequence)
	return b[:min(limit, len(b))]
}

// NotifyMsg implements memberlist.Delegate.
func (d *delegate) NotifyMsg(b []byte) {
	contain.Do(d.c.log, "a member's message", func() { d.c.receiveOverrides(b) })
}

// GetBroadcasts implements memberlist.Delegate.
func (d *delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.c.overrides.queue.GetBroadcasts(overhead, limit)
}

// LocalState implements memberlist.Delegate.
func (d *delegate) LocalState(bool) []byte { return d.c.overrideState() }

// MergeRemoteState implements memberlist.Delegate.
func (d *delegate) MergeRemoteState(b []byte, _ bool) {
	contain.Do(d.c.log, "a member's state", func() { d.c.receiveOverrides(b) })
}

// NotifyAlive implements memberlist.AliveDelegate: an error keeps a machine
// out.
func (d *delegate) NotifyAlive(n *memberlist.Node) (err error) {
	defer contain.Recover(d.c.log, "news of a member", func(e error) { err = e })
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	err = d.c.admit(n)
	// A member that has not heard the new facts yet repeats the old ones.
	if err != nil && !errors.Is(err, errOld) {
		d.c.strangers.add(Stranger{Addr: addrOf(n).Addr(), Name: readable(n.Name), Reason: err.Error(), Last: time.Now()})
	}
	return err
}

// admit decides whether n may be a member, or go on as one. It runs with c.mu
// held.
func (c *Cluster) admit(n *memberlist.Node) error {
	if len(n.Meta) > memberlist.MetaMaxSize {
		return fmt.Errorf("facts of %d bytes, memberlist allows %d", len(n.Meta), memberlist.MetaMaxSize)
	}
	// One member of another protocol ends all exchanges of states, and so keeps
	// out everybody who comes later.
	if n.PMin > protocolVersion || n.PMax < protocolVersion || n.PCur != protocolVersion || n.DMin|n.DMax|n.DCur != 0 {
		return fmt.Errorf("it speaks protocol %d (%d to %d), not %d", n.PCur, n.PMin, n.PMax, protocolVersion)
	}
	addr := addrOf(n)
	// memberlist compares the bytes: it would take the same address in another
	// form for a conflict, and the member's own facts for the forged ones.
	if !addr.IsValid() || string(n.Addr) != string(addr.Addr().AsSlice()) {
		return fmt.Errorf("its address has %d bytes", len(n.Addr))
	}
	id, err := identity.ParseID(n.Name)
	if err != nil {
		return err
	}
	known, ok := c.members[id]
	if ok && known.raw == string(n.Meta) && known.Addr == addr {
		return nil // its signature has been verified
	}
	facts, err := parseSigned(n.Meta)
	switch {
	case err != nil:
		return err
	case ok && facts.sequence <= known.sequence && !known.Self:
		return errOld // before its signature costs anything: it is not in the budget
	case !facts.signedBy(id, addr):
		return errSignature
	case !ok && len(c.members) >= maxMembers && !c.evictLongestGone():
		return fmt.Errorf("already %d members", maxMembers)
	case !ok && len(c.members) >= maxMembers/2 && c.aliveAtAddr(addr.Addr()) >= maxPerAddress:
		return fmt.Errorf("already %d members, and more than enough of this address", len(c.members))
	}
	// memberlist gives the name of one it calls dead to whoever asks.
	if known.State == Alive && known.Addr != addr {
		c.conflict(known, addr)
		return fmt.Errorf("the member lives at %s", known.Addr)
	}
	if (known.State == Alive || known.listed) && !known.Self {
		c.updateFacts(known, facts)
	}
	return nil
}

// updateFacts takes newer facts of a living member, whatever memberlist makes of
// them: it orders them by an incarnation number that nobody signs, so anybody who
// repeats facts with a great one makes all that comes later look old. So a goodbye
// counts here, and memberlist may never hear of it. A reported death is still to be
// confirmed. It runs with c.mu held.
func (c *Cluster) updateFacts(m Member, facts signed) {
	m.Meta, m.sequence, m.raw = facts.Meta, facts.sequence, string(facts.raw)
	m.State, m.Since = facts.state(Alive), time.Now()
	suspicion := c.suspects[m.ID]
	c.publish(m)
	if suspicion != nil {
		c.suspects[m.ID] = suspicion
	}
}

var errOld = errors.New("it repeats facts of earlier")

// aliveAtAddr returns how many living members say that they have an address. It runs
// with c.mu held.
func (c *Cluster) aliveAtAddr(addr netip.Addr) (n int) {
	for _, m := range c.members {
		if m.State == Alive && m.Addr.Addr() == addr {
			n++
		}
	}
	return n
}

// evictLongestGone forgets the member that has been gone for longest, and reports whether
// there was one. It runs with c.mu held.
func (c *Cluster) evictLongestGone() bool {
	var oldest *Member
	for _, m := range c.members {
		if m.State != Alive && (oldest == nil || m.Since.Before(oldest.Since)) {
			oldest = &m
		}
	}
	if oldest != nil {
		delete(c.members, oldest.ID)
	}
	return oldest != nil
}

// NotifyConflict implements memberlist.ConflictDelegate.
func (d *delegate) NotifyConflict(existing, other *memberlist.Node) {
	defer contain.Recover(d.c.log, "news of a member", nil)
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	d.c.conflict(Member{ID: idOf(existing), Addr: addrOf(existing)}, addrOf(other))
}

// conflict warns, now and then, of two machines with one id. It runs with c.mu
// held.
func (c *Cluster) conflict(m Member, other netip.AddrPort) {
	if c.conflictLogs.allow(time.Now()) {
		c.reports.add(func() {
			c.log.Warn("two machines have one id, or somebody pretends", "id", m.ID, "addr", m.Addr, "other", other)
		})
	}
}

// protocolVersion is that of memberlist which all of us speak.
const protocolVersion = memberlist.ProtocolVersion2Compatible

// idOf returns the ID of a member that was admitted.
func idOf(n *memberlist.Node) identity.ID {
	id, _ := identity.ParseID(n.Name)
	return id
}

func addrOf(n *memberlist.Node) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(addr.Unmap(), n.Port)
}

// NotifyJoin implements memberlist.EventDelegate.
func (d *delegate) NotifyJoin(n *memberlist.Node) { d.c.record(n, Alive) }

// NotifyUpdate implements memberlist.EventDelegate.
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.c.record(n, Alive) }

// NotifyLeave implements memberlist.EventDelegate.
func (d *delegate) NotifyLeave(n *memberlist.Node) { d.c.record(n, Dead) }

// record takes what memberlist says of a member, alive or dead. A death is not
// believed at once.
func (c *Cluster) record(n *memberlist.Node, state State) {
	defer contain.Recover(c.log, "news of a member", nil)
	id := idOf(n)
	m := Member{
		ID:    id,
		Addr:  addrOf(n),
		Since: time.Now(),
		Self:  id == c.cfg.Key.ID(),

		raw:    string(n.Meta),
		listed: state == Alive,
	}
	facts, err := parseSigned(n.Meta) // admitted, so signed
	if err != nil {
		c.log.Debug("member with unreadable facts", "id", m.ID, "error", err)
	}
	m.Meta, m.sequence = facts.Meta, facts.sequence

	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return // memberlist's timers of suspicion outlive its Shutdown
	}
	old := c.members[m.ID]
	if old.sequence > m.sequence && !m.Self { // memberlist did not take those, see updateFacts
		m.Meta, m.sequence, m.raw = old.Meta, old.sequence, old.raw
	}
	if m.State = state; !m.Self || state == Dead { // we stay until we have gone
		m.State = m.Meta.state(state)
	}
	if old.State == Alive && state == Dead && !m.Meta.leaving && !m.Self {
		old.listed = false
		c.members[m.ID] = old
		c.suspects[m.ID] = &suspicion{}
		c.suspected.Send()
		return
	}
	c.publish(m)
}

// publish makes m known to everybody who watches. It runs with c.mu held.
func (c *Cluster) publish(m Member) {
	delete(c.suspects, m.ID)
	m.otherImage = c.isOther(m.Meta)
	m.isSeed = slices.Contains(c.seedAddrs(), m.Addr.Addr())
	old := c.members[m.ID]
	if old.State == m.State {
		m.Since = old.Since
	}
	c.members[m.ID] = m
	c.forget(time.Now().Add(-forgetAge))
	c.claimNames(m)
	c.changes.Notify()
	c.wake.Send()
	if old.State != m.State && !m.Self {
		c.reports.add(func() {
			c.log.Info("member", "id", m.ID, "hostname", m.Meta.Hostname, "addr", m.Addr, "state", m.State, "other_image", m.otherImage)
			c.cfg.Events.Emit(event.Member{ID: m.ID, Joined: m.State == Alive})
		})
	}
}

// forget drops members that have been gone since before the given time.
func (c *Cluster) forget(before time.Time) {
	for id, m := range c.members {
		if m.State != Alive && m.Since.Before(before) {
			delete(c.members, id)
		}
	}
}
