package main

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"viver.lan/internal/control"
	"viver.lan/internal/roles"
)

// claims reports whether a node says that it holds a role.
func (m *machine) claims(role roles.Name) bool {
	s, err := m.status()
	return err == nil && slices.ContainsFunc(s.Members, func(o control.Member) bool { return o.ID == s.ID && slices.Contains(o.Roles, role) })
}

// TestNetnsRoles: nodes agree on who holds a role without asking anybody. A holder that
// is killed is replaced, and has no right to its role when it is back; each half of a
// network that is cut in two has a holder, and one of them remains when it is whole.
func TestNetnsRoles(t *testing.T) {
	t.Parallel()
	r := newRoom(t, 6, 60, 16)
	if r == nil {
		return
	}
	scheduler := roles.Name{Rune: "compile", Role: "scheduler"}
	one, err := roles.ParseCount("one")
	if err != nil {
		t.Fatal(err)
	}
	offers := []roles.Offer{{Name: scheduler, Count: one}}
	var nodes []*machine
	for i := range 6 {
		args := []string{"--gossip", r.bed.Node(i).AddrPort(gossipPort).String()}
		if i == 0 {
			nodes = append(nodes, r.origin(i, args...))
			continue
		}
		nodes = append(nodes, r.start(i, args...))
	}
	// holder is the one of some nodes that all of them say is the only one to hold the role,
	// -1 while they do not agree. Each of them first does what its runner would.
	holder := func(some ...int) int {
		found := -1
		for _, i := range some {
			s, err := nodes[i].status()
			if err != nil {
				return -1
			}
			held := roles.Assign(offers, s.RoleNodes(), nil).Of(s.ID)
			if err := control.NewClient(nodes[i].socket).SetRoles(t.Context(), held); err != nil {
				t.Logf("node %d: %v", i, err)
				return -1
			}
			if found == -2 {
				continue
			}
			holders := slices.DeleteFunc(slices.Clone(s.Members), func(m control.Member) bool {
				return m.State != control.Alive || !slices.Contains(m.Roles, scheduler)
			})
			var at int
			if len(holders) != 1 {
				found = -2
			} else if _, err := fmt.Sscanf(holders[0].Hostname, "node-%d", &at); err != nil || found >= 0 && found != at {
				found = -2
			} else {
				found = at
			}
		}
		if !slices.Contains(some, found) {
			return -1
		}
		return found
	}
	alive := func(some ...int) bool {
		return !slices.ContainsFunc(some, func(i int) bool {
			s, err := nodes[i].status()
			return err != nil || len(s.RoleNodes()) != len(some) ||
				len(slices.DeleteFunc(s.Members, func(m control.Member) bool { return m.State != control.Alive })) != len(some)
		})
	}
	agreed := func(what string, some ...int) (at int) {
		t.Helper()
		begin, claimed := time.Now(), time.Duration(0)
		until(t, what, func() bool {
			at = holder(some...)
			if claimed == 0 && slices.ContainsFunc(some, func(i int) bool { return nodes[i].claims(scheduler) }) {
				claimed = time.Since(begin)
			}
			return at >= 0
		})
		t.Logf("%s: node %d, after %.1f s; all say so after %.1f s", what, at, claimed.Seconds(), time.Since(begin).Seconds())
		return at
	}
	all := []int{0, 1, 2, 3, 4, 5}
	until(t, "all take roles and know each other", func() bool { holder(all...); return alive(all...) })
	first := agreed("the role is held", all...)

	nodes[first].kill()
	rest := slices.DeleteFunc(slices.Clone(all), func(i int) bool { return i == first })
	second := agreed("another node holds the role of the killed one", rest...)
	nodes[first].run()
	until(t, "the killed one knows the others", func() bool { // a runner waits for that, too
		s, err := nodes[first].status()
		return err == nil && len(s.RoleNodes()) == len(all)
	})
	until(t, "all know the killed one", func() bool { holder(all...); return alive(all...) })
	if now := agreed("the role stays", all...); now != second {
		t.Errorf("node %d holds the role, and node %d did when the other one came back", now, second)
	}

	here, there := []int{second}, []int{}
	for _, i := range all {
		switch {
		case i == second:
		case len(here) < 3:
			here = append(here, i)
		default:
			there = append(there, i)
		}
	}
	if err := r.bed.Partition(here, there); err != nil {
		t.Fatal(err)
	}
	third := agreed("the half without the holder has one", there...)
	if now := agreed("the other half keeps its own", here...); now != second {
		t.Errorf("node %d holds the role in the half of node %d, which held it before", now, second)
	}
	if err := r.bed.Heal(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	until(t, "all know each other again", func() bool { holder(all...); return alive(all...) })
	last := agreed("one holder remains", all...)
	t.Logf("the network is whole again after %.1f s", time.Since(begin).Seconds())
	if last != second && last != third {
		t.Errorf("node %d holds the role, and the halves had nodes %d and %d", last, second, third)
	}
}
