package placement

import "time"

const (
	// idleLimit is how long a member may take for its next piece.
	idleLimit = 2 * time.Minute
	// idleMemory is how long idle members are remembered, idleMost how many of them.
	idleMemory = 10 * time.Minute
	idleMost   = 1000
)

// Idle finds members that do not fetch the pieces assigned to them: a budget is
// easily claimed. It is not safe for concurrent use; times are
// durations since any fixed moment. The zero value is ready for use.
type Idle struct {
	members map[string]*idler // by machine
}

type idler struct {
	have int
	grew time.Duration // when it last claimed one more
	seen time.Duration
	idle bool
}

// Update takes how many pieces a member on a machine claims, and whether it lacks most of what is
// assigned to it although this node could send it some. It reports whether nothing
// shall be assigned to the member: it has claimed no new piece for two minutes. With
// the next new piece it is used again.
func (i *Idle) Update(now time.Duration, machine string, have int, lacking bool) bool {
	m := i.members[machine]
	if m == nil {
		m = &idler{grew: now}
		i.add(now, machine, m)
	}
	if have > m.have || !lacking && !m.idle || now-m.seen > idleLimit && !m.idle {
		m.grew, m.idle = now, false
	}
	m.have, m.seen = have, now
	m.idle = m.idle || now-m.grew >= idleLimit
	return m.idle
}

func (i *Idle) add(now time.Duration, machine string, m *idler) {
	if i.members == nil {
		i.members = make(map[string]*idler)
	}
	for old, o := range i.members {
		if now-o.seen > idleMemory {
			delete(i.members, old)
		}
	}
	if len(i.members) < idleMost {
		i.members[machine] = m
	}
}
