package cluster

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/ether"
	"viver.lan/internal/identity"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/sshkey"
)

// TestWhoHasAName plays the members of one node's list through, second by second.
func TestWhoHasAName(t *testing.T) {
	begin := time.Now()
	members, table := make(map[identity.ID]Member), make(names)
	change := func(at time.Duration, who string, state State, meta Meta) {
		id := identitytest.Named(who)
		now := begin.Add(at)
		m := Member{ID: id, State: state, Meta: meta, Addr: netip.MustParseAddrPort("10.0.0.7:7946"), Since: now}
		if old := members[id]; old.State == state {
			m.Since = old.Since
		}
		members[id] = m
		if state == Alive {
			table.claim(m, members, now)
		}
		table.follow(members, now)
	}
	lab := Meta{Hostname: "lab", MAC: ether.MAC{5: 1}}
	capitals := Meta{Hostname: "LAB", MAC: ether.MAC{5: 2}} // nobody tells them apart
	for i, step := range []struct {
		at    time.Duration
		id    string
		state State
		meta  Meta
		want  string // names of a, b and c
	}{
		{0, "a", Alive, lab, " - -"},
		{60 * time.Second, "b", Alive, capitals, " disputed -"}, // while the owner is there
		{70 * time.Second, "a", Dead, lab, " unconfirmed -"},
		{80 * time.Second, "a", Alive, lab, " disputed -"}, // it is back
		{90 * time.Second, "a", Dead, lab, " unconfirmed -"},
		{90*time.Second + nameHold, "a", Dead, lab, "disputed  -"},  // for long enough
		{91*time.Second + nameHold, "a", Alive, lab, "disputed  -"}, // too late
		{92*time.Second + nameHold, "b", Left, capitals, " - -"},    // a goodbye frees the name at once
		{93*time.Second + nameHold, "b", Alive, Meta{Hostname: "other"}, "  -"},
		{114*time.Second + nameHold, "c", Alive, Meta{Hostname: "new", MAC: lab.MAC}, "  disputed"}, // one of two names is enough
		{115*time.Second + nameHold, "a", Alive, Meta{Hostname: "lab"}, "  "},                       // the owner drops a name
	} {
		change(step.at, step.id, step.state, step.meta)
		got := ""
		for _, who := range []string{"a", "b", "c"} {
			s := NameState("-")
			if m, ok := members[identitytest.Named(who)]; ok && m.State != Left {
				s = table.state(m, members)
			}
			if got += string(s); who != "c" {
				got += " "
			}
		}
		if got != step.want {
			t.Errorf("step %d: names %q, want %q", i, got, step.want)
		}
	}
}

// Of two that are heard of together nobody can tell who had the name first: it is
// neither's, until one of them goes.
func TestNamesOfNewcomers(t *testing.T) {
	now := time.Now()
	members, table := make(map[identity.ID]Member), make(names)
	for _, id := range []identity.ID{identitytest.Named("a"), identitytest.Named("b")} {
		members[id] = Member{ID: id, State: Alive, Meta: Meta{Hostname: "lab"}, Since: now}
		table.claim(members[id], members, now)
	}
	for id, m := range members {
		if s := table.state(m, members); s != Disputed {
			t.Errorf("%s is %q", id, s)
		}
	}
	b := members[identitytest.Named("b")]
	b.State = Left
	members[b.ID] = b
	table.follow(members, now.Add(time.Second))
	if s := table.state(members[identitytest.Named("a")], members); s != Owned {
		t.Errorf("alone a is %q", s)
	}
}

// Of two that are heard of together the one that our boot named has the name, in
// whatever order they are heard; two at its address are one too many.
func TestNamesOfSeeds(t *testing.T) {
	for _, order := range []string{"host liar other", "liar host other", "liar other host", "host twin liar", "liar twin host"} {
		now := time.Now()
		members, table := make(map[identity.ID]Member), make(names)
		for _, who := range strings.Fields(order) {
			m := Member{ID: identitytest.Named(who), State: Alive, Meta: Meta{Hostname: "lab"}, Since: now, isSeed: who == "host" || who == "twin"}
			members[m.ID] = m
			table.claim(m, members, now)
		}
		host, liar, twin := identitytest.Named("host"), identitytest.Named("liar"), identitytest.Named("twin")
		want := map[identity.ID]NameState{host: Owned, twin: Disputed, liar: Disputed, identitytest.Named("other"): Disputed}
		if _, ok := members[twin]; ok {
			want[host] = Disputed
		}
		check := func(when string) {
			for id, m := range members {
				if s := table.state(m, members); m.State == Alive && s != want[id] {
					t.Errorf("%s, %s: %s is %q, want %q", order, when, id, s, want[id])
				}
			}
		}
		check("heard")
		table.follow(members, now.Add(time.Second))
		check("followed")
		if m, ok := members[twin]; ok { // it does not answer at that address
			m.State, m.Since = Dead, now.Add(8*time.Second)
			members[twin] = m
			want[host] = Owned
			if table[usedName{"hostname", "lab"}].id == twin {
				want[host], want[liar] = Unconfirmed, Unconfirmed // the dead keep names for a while
			}
			table.follow(members, now.Add(8*time.Second))
			check("without the twin")
		}
	}
}

// An address is a name once an SSH host key goes by it: several nodes of one
// machine have none.
func TestAddressAsAName(t *testing.T) {
	m := Member{Addr: netip.MustParseAddrPort("10.0.0.7:7946")}
	if c := m.usedNames(); len(c) != 0 {
		t.Errorf("without a host key: %v", c)
	}
	m.Meta.HostKey = sshkey.Key{1}
	if c := m.usedNames(); fmt.Sprint(c) != "[{address 10.0.0.7}]" {
		t.Errorf("with a host key: %v", c)
	}
}

func TestWhichNetwork(t *testing.T) {
	member := func(who, addr, network string, first bool) Member {
		return Member{ID: identitytest.Named(who), Addr: netip.MustParseAddrPort(addr + ":7946"), Meta: Meta{Network: network, First: first}, Self: who == "self"}
	}
	self, medium := member("self", "10.0.0.1", "", false), member("self", "10.0.0.1", "", true)
	host, unnamed := member("host", "10.0.0.2", "x", true), member("host", "10.0.0.2", "", true)
	seeds := []netip.Addr{host.Addr.Addr()}
	// Somebody says that it is at the boot host's address, which is no lie for long.
	liar := member("a", "10.0.0.2", "evil", true)
	host.Since, unnamed.Since, liar.Since = time.Unix(1, 0), time.Unix(1, 0), time.Unix(2, 0)
	for what, test := range map[string]struct {
		choice
		want string
		draw bool
	}{
		"a seed, and there":             {choice{members: []Member{self, host, member("a", "10.0.0.3", "evil", true)}, seeds: seeds, waited: seedPatience}, "x", false},
		"a seed, others may come":       {choice{members: []Member{self, liar}, seeds: seeds, waited: seedPatience - 1}, "", false},
		"a seed, and a liar there":      {choice{members: []Member{self, liar, host}, seeds: seeds, waited: conflictPatience - 1}, "", false},
		"a seed, and a new liar there":  {choice{members: []Member{self, liar, host}, seeds: seeds, waited: conflictPatience}, "x", false},
		"a liar before there is one":    {choice{members: []Member{self, liar, unnamed}, seeds: seeds, waited: conflictPatience}, "", false},
		"a seed, not there yet":         {choice{members: []Member{self, member("a", "10.0.0.3", "evil", true)}, seeds: seeds}, "", false},
		"a seed, there, without a name": {choice{members: []Member{self, unnamed, member("a", "10.0.0.3", "evil", true)}, seeds: seeds, waited: 30 * time.Second}, "", false},
		"a seed, gone":                  {choice{members: []Member{self, member("a", "10.0.0.3", "y", true)}, seeds: seeds, waited: joinPatience}, "y", false},
		"most say so": {choice{members: []Member{medium, member("a", "10.0.0.3", "y", false), member("b", "10.0.0.4", "z", false), member("c", "10.0.0.5", "z", false)},
			waited: joinPatience}, "z", false},
		"a tie":                        {choice{members: []Member{medium, member("b", "10.0.0.4", "z", false), member("a", "10.0.0.3", "y", false)}, waited: joinPatience}, "y", false},
		"too early":                    {choice{members: []Member{medium, member("a", "10.0.0.3", "y", false)}}, "", false},
		"alone with the medium, early": {choice{members: []Member{medium}, waited: drawPatience - 1}, "", false},
		"alone with the medium":        {choice{members: []Member{medium}, waited: drawPatience}, "", true},
		"alone with saved data":        {choice{members: []Member{self}, saved: "s", waited: drawPatience}, "", true},
		"alone":                        {choice{members: []Member{self}, waited: drawPatience}, "", false},
		"alone for long":               {choice{members: []Member{self}, waited: alonePatience}, "", true},
		"another first begins":         {choice{members: []Member{medium, member("a", "10.0.0.3", "", true)}, waited: drawPatience}, "", false},
		"another first never does":     {choice{members: []Member{medium, member("a", "10.0.0.3", "", true)}, waited: 2 * drawPatience}, "", true},
		"we begin":                     {choice{members: []Member{medium, member("z", "10.0.0.3", "", true), member("a", "10.0.0.4", "", false)}, waited: drawPatience}, "", true},
	} {
		test.patience = 1
		if name, draw := test.network(); name != test.want || draw != test.draw {
			t.Errorf("%s: %q, draw %v; want %q, %v", what, name, draw, test.want, test.draw)
		}
	}
	if a, b := newNetworkName(), newNetworkName(); a == b || (Meta{Network: a}).check() != nil {
		t.Errorf("networks are called %q and %q", a, b)
	}
}

// A network begins with a name, whoever joins takes it, and what the operator
// signed for it counts nowhere else.
func TestNetworkGetsAName(t *testing.T) {
	t.Parallel()
	node := func(n int, first bool, seeds ...netip.AddrPort) *Cluster {
		cfg := config(t, n, seeds...)
		cfg.Verify, cfg.patience, cfg.Meta.Network, cfg.Meta.First = checkEntry, 20, "", first
		c, _ := start(t, cfg)
		return c
	}
	a := node(141, true)
	b := node(142, false, a.Addr())
	named := func(map[identity.ID]Member) bool { return b.Network() != "" && b.Network() == a.Network() }
	waitFor(t, b, "the network has a name", named)
	e := entry("name/x", "lab-1", 1)
	if err := a.Put(e); err == nil {
		t.Error("an entry for another network is taken")
	}
	e.Network = a.Network()
	e.Signature = append([]byte("signed "), e.SignedBytes()...)
	if err := a.Put(e); err != nil {
		t.Fatal(err)
	}
	waitFor(t, b, "the entry", says(b, "name/x", "lab-1"))
}
