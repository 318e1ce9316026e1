package cluster

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"viver.lan/internal/ether"
	"viver.lan/internal/identity"
	"viver.lan/internal/sshkey"
)

// NameState says whether a member's names are its own.
type NameState string

// The states of a member's names.
const (
	Owned       NameState = ""            // it had them before anybody else
	Unconfirmed NameState = "unconfirmed" // who had one of them is away, not for long enough
	Disputed    NameState = "disputed"    // another member has one of them
)

const (
	// nameHold is how long a name is kept for a key that is away without a
	// goodbye. A machine without a disk comes back with another key, and has to
	// wait that long for its name.
	nameHold = 5 * time.Minute
	// nameSeniority is how long a member must have been known before it wins
	// against another that claims its name: of those that were heard of together
	// nobody can tell who was first.
	nameSeniority = 10 * time.Second
)

// usedName is a name that a member uses.
type usedName struct{ kind, value string }

// usedNames are the names that m uses. The address is one of them once m has an
// SSH host key, which goes by it. A hostname is the same in capitals: resolvers and ssh
// do not tell them apart (RFC 4343).
func (m Member) usedNames() (out []usedName) {
	if m.Meta.Hostname != "" {
		out = append(out, usedName{"hostname", strings.ToLower(m.Meta.Hostname)})
	}
	if m.Meta.MAC != (ether.MAC{}) {
		out = append(out, usedName{"mac", m.Meta.MAC.String()})
	}
	if m.Meta.HostKey != (sshkey.Key{}) {
		out = append(out, usedName{"address", m.Addr.Addr().String()})
	}
	return out
}

// owner is who has a name.
type owner struct {
	id    identity.ID
	since time.Time // when it became a member that uses the name
	// contested: another was heard to use it at about the same time.
	contested bool
}

// names says which member has which name. The rule: the key that had a name
// first keeps it while it is a member, and for nameHold after it went without a
// goodbye. It is a pure table; its caller holds the lock and says the time.
type names map[usedName]owner

// claim gives a living member the names that it uses and nobody has, and notes
// where another was heard to use one at about the same time. Then a machine that our
// boot named has the name: it was there before anybody could know of us, and who
// gives a false address is dead soon.
func (t names) claim(m Member, members map[identity.ID]Member, now time.Time) {
	for _, n := range m.usedNames() {
		o, taken := t[n]
		switch {
		case !taken || o.id != m.ID && !t.keeps(members[o.id], n, now):
			t[n] = owner{id: m.ID, since: m.Since}
		case o.id == m.ID || members[o.id].State != Alive || now.Sub(o.since) >= nameSeniority:
		case m.isSeed && !members[o.id].isSeed:
			t[n] = owner{id: m.ID, since: m.Since}
		case m.isSeed == members[o.id].isSeed:
			o.contested = true
			t[n] = o
		}
	}
}

// follow brings the table up to date with the members.
func (t names) follow(members map[identity.ID]Member, now time.Time) {
	for n, o := range t {
		if m, ok := members[o.id]; !ok || !t.keeps(m, n, now) {
			delete(t, n)
		}
	}
	byAge := slices.SortedFunc(maps.Values(members), func(a, b Member) int {
		return cmp.Or(a.Since.Compare(b.Since), a.ID.Compare(b.ID))
	})
	for _, m := range byAge {
		if m.State == Alive {
			t.claim(m, members, now)
		}
	}
	users := make(map[usedName]int) // that may be the owner
	for _, m := range byAge {
		for _, n := range m.usedNames() {
			if m.State == Alive && (m.isSeed || !members[t[n].id].isSeed) {
				users[n]++
			}
		}
	}
	for n, o := range t {
		if o.contested && users[n] < 2 {
			o.contested = false
			t[n] = o
		}
	}
}

// keeps reports whether the owner m still has a name.
func (t names) keeps(m Member, n usedName, now time.Time) bool {
	switch m.State {
	case Alive:
		return slices.Contains(m.usedNames(), n)
	case Dead:
		return now.Sub(m.Since) < nameHold
	}
	return false // it said goodbye
}

// state says whether m's names are its own.
func (t names) state(m Member, members map[identity.ID]Member) NameState {
	s := Owned
	for _, n := range m.usedNames() {
		o, taken := t[n]
		switch {
		case !taken || o.id == m.ID && !o.contested:
		case o.contested || members[o.id].State == Alive:
			return Disputed
		default:
			s = Unconfirmed
		}
	}
	return s
}

// claimNames works out m's NameState at once, for it must not pass for another for a
// moment; that of the others follows. It runs with c.mu held.
func (c *Cluster) claimNames(m Member) {
	c.namesStale = true
	if m.State == Alive {
		c.names.claim(m, c.members, time.Now())
	}
	c.setNameState(m)
	for _, n := range m.usedNames() {
		if other, ok := c.members[c.names[n].id]; ok && other.ID != m.ID {
			c.setNameState(other)
		}
	}
}

// setNameState works out m's and reports whether it is new. It runs with c.mu held.
func (c *Cluster) setNameState(m Member) bool {
	s := c.names.state(m, c.members)
	if s == m.NameState {
		return false
	}
	if s == Disputed && c.conflictLogs.allow(time.Now()) {
		c.reports.add(func() {
			c.log.Warn("two members use one name", "hostname", m.Meta.Hostname, "mac", m.Meta.MAC, "id", m.ID, "addr", m.Addr)
		})
	}
	m.NameState = s
	c.members[m.ID] = m
	return true
}

// refreshNames lets names follow the members, and notifies whoever watches when that
// changes a NameState. It runs with c.mu held.
func (c *Cluster) refreshNames(now time.Time) {
	c.namesStale = false
	c.names.follow(c.members, now)
	changed := false
	for _, m := range c.members {
		changed = c.setNameState(m) || changed
	}
	if changed {
		c.changes.Notify()
	}
}
