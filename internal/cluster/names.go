package cluster

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"viver.lan/internal/ether"
	"viver.lan/internal/sshkey"
)

// Standing says whether a member's names are its own.
type Standing string

// The standings of a member.
const (
	Owner       Standing = ""            // it had its names before anybody else
	Unconfirmed Standing = "unconfirmed" // who had one of them is away, not for long enough
	Disputed    Standing = "disputed"    // another member has one of them
)

const (
	// nameHold is how long a name is kept for a key that is away without a
	// goodbye. A machine without a disk comes back with another key, and has to
	// wait that long for its name.
	nameHold = 5 * time.Minute
	// nameProof is how long a member must have been known before it wins
	// against another that claims its name: of those that were heard of together
	// nobody can tell who was first.
	nameProof = 10 * time.Second
)

// claim is a name of one kind that a member uses.
type claim struct{ kind, value string }

// claims are the names that m uses. The address is one of them once m has an
// SSH host key, which goes by it.
func (m Member) claims() (out []claim) {
	if m.Meta.Hostname != "" {
		out = append(out, claim{"hostname", m.Meta.Hostname})
	}
	if m.Meta.MAC != (ether.MAC{}) {
		out = append(out, claim{"mac", m.Meta.MAC.String()})
	}
	if m.Meta.HostKey != (sshkey.Key{}) {
		out = append(out, claim{"address", m.Addr.Addr().String()})
	}
	return out
}

// owner is who has a name.
type owner struct {
	id    NodeID
	since time.Time // when it became a member that uses the name
	// tied: another was heard to use it at about the same time.
	tied bool
}

// names says which member has which name. The rule: the key that had a name
// first keeps it while it is a member, and for nameHold after it went without a
// goodbye. It is a pure table; its caller holds the lock and says the time.
type names map[claim]owner

// claim gives a living member the names that it uses and nobody has, and notes
// where another was heard to use one at about the same time. Then a machine that our
// boot named has the name: it was there before anybody could know of us, and who
// gives a false address is dead soon.
func (t names) claim(m Member, members map[NodeID]Member, now time.Time) {
	for _, c := range m.claims() {
		o, taken := t[c]
		switch {
		case !taken || o.id != m.ID && !t.keeps(members[o.id], c, now):
			t[c] = owner{id: m.ID, since: m.Since}
		case o.id == m.ID || members[o.id].State != Alive || now.Sub(o.since) >= nameProof:
		case m.told && !members[o.id].told:
			t[c] = owner{id: m.ID, since: m.Since}
		case m.told == members[o.id].told:
			o.tied = true
			t[c] = o
		}
	}
}

// settle lets the table follow the members.
func (t names) settle(members map[NodeID]Member, now time.Time) {
	for c, o := range t {
		if m, ok := members[o.id]; !ok || !t.keeps(m, c, now) {
			delete(t, c)
		}
	}
	byAge := slices.SortedFunc(maps.Values(members), func(a, b Member) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID))
	})
	for _, m := range byAge {
		if m.State == Alive {
			t.claim(m, members, now)
		}
	}
	users := make(map[claim]int) // that may be the owner
	for _, m := range byAge {
		for _, c := range m.claims() {
			if m.State == Alive && (m.told || !members[t[c].id].told) {
				users[c]++
			}
		}
	}
	for c, o := range t {
		if o.tied && users[c] < 2 {
			o.tied = false
			t[c] = o
		}
	}
}

// keeps reports whether the owner m still has name c.
func (t names) keeps(m Member, c claim, now time.Time) bool {
	switch m.State {
	case Alive:
		return slices.Contains(m.claims(), c)
	case Dead:
		return now.Sub(m.Since) < nameHold
	}
	return false // it said goodbye
}

// standing says whether m's names are its own.
func (t names) standing(m Member, members map[NodeID]Member) Standing {
	s := Owner
	for _, c := range m.claims() {
		o, taken := t[c]
		switch {
		case !taken || o.id == m.ID && !o.tied:
		case o.tied || members[o.id].State == Alive:
			return Disputed
		default:
			s = Unconfirmed
		}
	}
	return s
}

// claimNames gives m its standing at once, for it must not pass for another for a
// moment; that of the others follows. It runs with c.mu held.
func (c *Cluster) claimNames(m Member) {
	c.unsettled = true
	if m.State == Alive {
		c.names.claim(m, c.members, time.Now())
	}
	c.setStanding(m)
	for _, k := range m.claims() {
		if other, ok := c.members[c.names[k].id]; ok && other.ID != m.ID {
			c.setStanding(other)
		}
	}
}

// setStanding works out m's and reports whether it is new. It runs with c.mu held.
func (c *Cluster) setStanding(m Member) bool {
	s := c.names.standing(m, c.members)
	if s == m.Standing {
		return false
	}
	if s == Disputed && c.conflicts.allow(time.Now()) {
		c.log.Warn("two members use one name", "hostname", m.Meta.Hostname, "mac", m.Meta.MAC, "id", m.ID, "at", m.Addr)
	}
	m.Standing = s
	c.members[m.ID] = m
	return true
}

// settleNames lets names follow the members, and wakes whoever watches when that
// changes a standing. It runs with c.mu held.
func (c *Cluster) settleNames(now time.Time) {
	c.unsettled = false
	c.names.settle(c.members, now)
	changed := false
	for _, m := range c.members {
		changed = c.setStanding(m) || changed
	}
	if changed {
		c.changes.Notify()
	}
}
