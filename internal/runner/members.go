package runner

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"viver.lan/internal/control"
	"viver.lan/internal/roles"
	"viver.lan/internal/runes"
)

// known reports whether a member answers, and its names are its own.
func known(m control.Member) bool { return m.State == control.Alive && m.NameState == control.Owned }

// factsOf adds to what uinit found out what the block daemon says of the network, and
// the roles that this machine is to hold.
func factsOf(start runes.Facts, s control.Status, held []roles.Name) (runes.Facts, []error) {
	f := start
	f.Network, f.FirstNode = s.Network, s.First
	f.Members, f.Unconfirmed, f.Left, f.Labels, f.Roles = nil, nil, nil, nil, roleNames(held)
	for _, m := range s.Members {
		if m.State == control.Alive && m.NameState == control.Unconfirmed {
			f.Unconfirmed = append(f.Unconfirmed, m.Address.String())
		}
		if m.State == control.Left {
			f.Left = append(f.Left, m.ID.String())
		}
		if !known(m) {
			continue
		}
		fact := runes.MemberFact{ID: m.ID.String(), Hostname: m.Hostname, Address: m.Address.String(), MAC: m.MAC, First: m.First, HostKey: m.HostKey,
			CPUs: m.CPUs, Memory: int(m.Memory >> 20), Roles: roleNames(m.Roles)}
		if m.ID == s.ID {
			f.Labels, fact.Roles = m.Labels, f.Roles
			f.Address = fact.Address
		}
		f.Members = append(f.Members, fact)
	}
	slices.Sort(f.Unconfirmed)
	slices.Sort(f.Left)
	slices.SortFunc(f.Members, func(a, b runes.MemberFact) int { return strings.Compare(a.Hostname, b.Hostname) })
	return f.Checked()
}

func roleNames(list []roles.Name) []string {
	var names []string
	for _, n := range list {
		names = append(names, n.String())
	}
	return names
}

// tooMany says which roles a machine does not hold because it can claim no more.
func tooMany(over []roles.Name) []string {
	if len(over) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("roles that fall to this machine and that it does not hold, because one machine can claim no more than it does: %s; pin them to others",
		strings.Join(roleNames(over), ", "))}
}

// digest tells one list of members from another.
func digest(members []runes.MemberFact, unconfirmed []string) string {
	data, err := json.Marshal([]any{members, unconfirmed})
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// A machine that has just booted sees the members of its network one after the other. It
// claims nothing until it has seen them for a while, or it would take a role that another
// one holds.
const (
	settleFirst = 5 * time.Second  // since the first word of the block daemon
	settleQuiet = 3 * time.Second  // since the last member came or left
	settleLast  = 15 * time.Second // whatever comes and leaves
)

// settling finds out when the members are known. A runner that is started again does so,
// too: the block daemon may have been, meanwhile.
type settling struct {
	began, changed time.Time
	members        string
	done           bool
	before         bool // they were known once
}

// lost begins again: the block daemon was started again, and sees the members one after
// the other.
func (s *settling) lost() { *s = settling{before: s.before || s.done} }

// saw takes the members of one moment and returns how long it is to wait from then on;
// nothing when they are known.
func (s *settling) saw(members string, now time.Time) time.Duration {
	if s.done {
		return 0
	}
	if s.began.IsZero() {
		s.began = now
	}
	if members != s.members {
		s.members, s.changed = members, now
	}
	until := s.began.Add(settleFirst)
	if quiet := s.changed.Add(settleQuiet); quiet.After(until) {
		until = quiet
	}
	if last := s.began.Add(settleLast); last.Before(until) {
		until = last
	}
	if wait := until.Sub(now); wait > 0 {
		return wait
	}
	s.done = true
	return 0
}

// ids are the members that answer, as settling tells them apart.
func ids(s control.Status) string {
	var list []string
	for _, m := range s.Members {
		if m.State == control.Alive {
			list = append(list, m.ID.String())
		}
	}
	slices.Sort(list)
	return strings.Join(list, " ")
}
