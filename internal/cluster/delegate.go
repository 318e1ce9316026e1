package cluster

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/memberlist"

	"viver.lan/internal/contain"
	"viver.lan/internal/event"
	"viver.lan/internal/sshkey"
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
	b := d.c.meta.marshal()
	return b[:min(limit, len(b))]
}

// NotifyMsg implements memberlist.Delegate.
func (d *delegate) NotifyMsg(b []byte) {
	contain.Do(d.c.log, "a member's message", func() { d.c.hearWords(b) })
}

// GetBroadcasts implements memberlist.Delegate.
func (d *delegate) GetBroadcasts(overhead, limit int) [][]byte {
	return d.c.words.queue.GetBroadcasts(overhead, limit)
}

// LocalState implements memberlist.Delegate.
func (d *delegate) LocalState(bool) []byte { return d.c.allWords() }

// MergeRemoteState implements memberlist.Delegate.
func (d *delegate) MergeRemoteState(b []byte, _ bool) {
	contain.Do(d.c.log, "a member's state", func() { d.c.hearWords(b) })
}

// NotifyAlive implements memberlist.AliveDelegate: an error keeps a machine
// out.
func (d *delegate) NotifyAlive(n *memberlist.Node) (err error) {
	defer contain.Recover(d.c.log, "news of a member", func(e error) { err = e })
	if !validName(n.Name) {
		return fmt.Errorf("member name %q is not usable", n.Name)
	}
	if len(n.Meta) > memberlist.MetaMaxSize {
		return fmt.Errorf("facts of %d bytes, memberlist allows %d", len(n.Meta), memberlist.MetaMaxSize)
	}
	// One member of another protocol ends all exchanges of states, and so keeps
	// out everybody who comes later.
	if n.PMin > spoken || n.PMax < spoken || n.PCur != spoken || n.DMin|n.DMax|n.DCur != 0 {
		return fmt.Errorf("it speaks protocol %d (%d to %d), not %d", n.PCur, n.PMin, n.PMax, spoken)
	}
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	known, ok := d.c.members[NodeID(n.Name)]
	if !ok && len(d.c.members) >= maxMembers {
		return fmt.Errorf("already %d members", maxMembers)
	}
	// memberlist gives the name of one it calls dead to whoever asks.
	if known.State == Alive && known.Addr != addrOf(n) {
		d.c.conflict(known, addrOf(n))
		return fmt.Errorf("the member lives at %s", known.Addr)
	}
	return nil
}

// NotifyConflict implements memberlist.ConflictDelegate.
func (d *delegate) NotifyConflict(existing, other *memberlist.Node) {
	defer contain.Recover(d.c.log, "news of a member", nil)
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	d.c.conflict(Member{ID: NodeID(existing.Name), Addr: addrOf(existing)}, addrOf(other))
}

// conflict warns, now and then, of two machines with one id. It runs with c.mu
// held.
func (c *Cluster) conflict(m Member, other netip.AddrPort) {
	if c.conflicts.allow(time.Now()) {
		c.log.Warn("two machines have one id, or somebody pretends", "id", m.ID, "at", m.Addr, "and", other)
	}
}

// spoken is the protocol of memberlist that all of us speak.
const spoken = memberlist.ProtocolVersion2Compatible

func addrOf(n *memberlist.Node) netip.AddrPort {
	addr, _ := netip.AddrFromSlice(n.Addr)
	return netip.AddrPortFrom(addr.Unmap(), n.Port)
}

// NotifyJoin implements memberlist.EventDelegate.
func (d *delegate) NotifyJoin(n *memberlist.Node) { d.c.note(n, Alive) }

// NotifyUpdate implements memberlist.EventDelegate.
func (d *delegate) NotifyUpdate(n *memberlist.Node) { d.c.note(n, Alive) }

// NotifyLeave implements memberlist.EventDelegate.
func (d *delegate) NotifyLeave(n *memberlist.Node) {
	defer contain.Recover(d.c.log, "news of a member", nil)
	state := Dead
	if meta, err := parseMeta(n.Meta); err == nil && meta.leaving {
		state = Left
	}
	d.c.note(n, state)
}

// note records what memberlist says of a member. A death is not believed at
// once.
func (c *Cluster) note(n *memberlist.Node, state State) {
	defer contain.Recover(c.log, "news of a member", nil)
	m := Member{
		ID:    NodeID(n.Name),
		Addr:  addrOf(n),
		State: state,
		Since: time.Now(),
		Self:  NodeID(n.Name) == c.cfg.ID,
	}
	meta, err := parseMeta(n.Meta)
	if err != nil {
		c.log.Debug("member with unreadable facts", "id", m.ID, "error", err)
	}
	m.Meta = meta

	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return // memberlist's timers of suspicion outlive its Shutdown
	}
	if old := c.members[m.ID]; old.State == Alive && state == Dead && !m.Self {
		c.accused[m.ID] = &accusation{}
		nudge(c.doubt)
		return
	}
	c.publish(m)
}

// publish makes m known to everybody who watches. It runs with c.mu held.
func (c *Cluster) publish(m Member) {
	delete(c.accused, m.ID)
	m.OtherImage = m.Meta.Infohash != c.meta.Infohash
	old := c.members[m.ID]
	if old.State == m.State {
		m.Since = old.Since
	}
	if old.State == Alive && m.State == Alive && !m.Self {
		m.Meta.HostKey = c.keepKey(old, m.Meta.HostKey)
	}
	c.members[m.ID] = m
	c.forget(time.Now().Add(-forgetAge))
	c.tell()
	nudge(c.wake)
	if old.State != m.State && !m.Self {
		c.log.Info("member", "id", m.ID, "hostname", m.Meta.Hostname, "addr", m.Addr, "state", m.State, "other_image", m.OtherImage)
		c.cfg.Events.Emit(event.Member{Name: string(m.ID), Joined: m.State == Alive})
	}
}

// keepKey returns the host key of a living member: the first one heard of it,
// because who has booted does not change it, and anybody on the link can name
// another in its name. It runs with c.mu held.
func (c *Cluster) keepKey(m Member, now sshkey.Key) sshkey.Key {
	if m.Meta.HostKey == (sshkey.Key{}) || m.Meta.HostKey == now {
		return now
	}
	if c.conflicts.allow(time.Now()) {
		c.log.Warn("a member's SSH host key changed while it lives, or somebody pretends; the first one stays",
			"id", m.ID, "addr", m.Addr, "key", m.Meta.HostKey, "now", now)
	}
	return m.Meta.HostKey
}

// tell wakes everybody who watches. It runs with c.mu held.
func (c *Cluster) tell() {
	for ch := range c.watchers {
		nudge(ch)
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
