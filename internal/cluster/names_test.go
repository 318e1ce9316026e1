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
		want  string
		begin bool
	}{
		"a seed, and there":             {choice{members: []Member{self, host, member("a", "10.0.0.3", "evil", true)}, seeds: seeds, waited: seedPatience}, "x", false},
		"a seed, others may come":       {choice{members: []Member{self, liar}, seeds: seeds, waited: seedPatience - 1}, "", false},
		"a seed, and a liar there":      {choice{members: []Member{self, liar, host}, seeds: seeds, waited: conflictPatience - 1}, "", false},
		"a seed, and a new liar there":  {choice{members: []Member{self, liar, host}, seeds: seeds, waited: conflictPatience}, "x", false},
		"a liar before there is one":    {choice{members: []Member{self, liar, unnamed}, seeds: seeds, waited: conflictPatience}, "", false},
		"a seed, not there yet":         {choice{members: []Member{self, member("a", "10.0.0.3", "evil", true)}, seeds: seeds}, "", false},
		"a seed, there, without a name": {choice{members: []Member{self, unnamed, member("a", "10.0.0.3", "evil", true)}, seeds: seeds, waited: 30 * time.Second}, "", false},
		"a seed that follows us":        {choice{members: []Member{self, unnamed, member("a", "10.0.0.3", "y", true)}, seeds: seeds, waited: time.Hour, named: conflictPatience}, "y", false},
		"a seed, gone":                  {choice{members: []Member{self, member("a", "10.0.0.3", "y", true)}, seeds: seeds, waited: joinPatience}, "y", false},
		"most say so": {choice{members: []Member{medium, member("a", "10.0.0.3", "y", false), member("b", "10.0.0.4", "z", false), member("c", "10.0.0.5", "z", false)},
			waited: joinPatience}, "z", false},
		"a tie":                            {choice{members: []Member{medium, member("b", "10.0.0.4", "z", false), member("a", "10.0.0.3", "y", false)}, waited: joinPatience}, "y", false},
		"too early":                        {choice{members: []Member{medium, member("a", "10.0.0.3", "y", false)}}, "", false},
		"a first node alone":               {choice{members: []Member{medium}, waited: time.Hour}, "", false},
		"alone":                            {choice{members: []Member{self}, waited: time.Hour}, "", false},
		"asked":                            {choice{members: []Member{medium}, asked: true, waited: joinPatience}, "", true},
		"asked, early":                     {choice{members: []Member{medium}, asked: true, waited: joinPatience - 1}, "", false},
		"asked, one is there":              {choice{members: []Member{medium, member("a", "10.0.0.3", "y", true)}, asked: true, waited: joinPatience}, "y", false},
		"asked, the seed follows soon":     {choice{members: []Member{self, unnamed, member("a", "10.0.0.3", "y", true)}, seeds: seeds, asked: true, waited: joinPatience}, "", false},
		"asked, the seed follows us":       {choice{members: []Member{self, unnamed, member("a", "10.0.0.3", "y", true)}, seeds: seeds, asked: true, waited: time.Hour, named: conflictPatience}, "y", false},
		"asked, a seed, nobody has a name": {choice{members: []Member{self, unnamed}, seeds: seeds, asked: true, waited: joinPatience}, "", true},
		"saved, others have just begun":    {choice{members: []Member{self, unnamed, member("a", "10.0.0.3", "y", true)}, seeds: seeds, saved: "s", waited: 2 * savedPatience}, "", false},
		"asked, the seeds differ":          {choice{members: []Member{self, liar, unnamed}, seeds: seeds, asked: true, waited: conflictPatience}, "", false},
		"saved, early":                     {choice{members: []Member{medium}, saved: "s", waited: savedPatience - 1}, "", false},
		"saved":                            {choice{members: []Member{medium}, saved: "s", waited: savedPatience}, "", true},
		"saved, and no first node":         {choice{members: []Member{self, member("z", "10.0.0.4", "", false)}, saved: "s", waited: savedPatience}, "", true},
		"saved, others may have":           {choice{members: []Member{self, unnamed}, seeds: seeds, saved: "s", waited: savedPatience}, "", false},
		"saved, others have not":           {choice{members: []Member{self, unnamed}, seeds: seeds, saved: "s", waited: 2 * savedPatience}, "", true},
		"saved, and another name":          {choice{members: []Member{self, host}, seeds: seeds, saved: "s", waited: 2 * savedPatience}, "x", false},
	} {
		test.patience = 1
		if name, begin := test.network(); name != test.want || begin != test.begin {
			t.Errorf("%s: %q, begin %v; want %q, %v", what, name, begin, test.want, test.begin)
		}
	}
	if a, b := newNetworkName(), newNetworkName(); a == b || (Meta{Network: a}).check() != nil {
		t.Errorf("networks are called %q and %q", a, b)
	}
}

// A network gets a name when the operator asks any of its nodes for one, and what the
// operator signed for it counts nowhere else.
func TestNetworkGetsAName(t *testing.T) {
	t.Parallel()
	a := nameless(t, 141, true, "")
	b := nameless(t, 142, false, "", a.Addr())
	b.BeginNetwork()
	waitFor(t, a, "the network has a name", func(map[identity.ID]Member) bool { return a.Network() != "" && b.Network() == a.Network() })
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

// The name that a disk has kept comes back, though the first node has no such disk.
func TestNetworkHasItsNameAgain(t *testing.T) {
	t.Parallel()
	a := nameless(t, 143, true, "")
	nameless(t, 144, false, "saved", a.Addr())
	c := nameless(t, 145, false, "", a.Addr())
	for _, n := range []*Cluster{a, c} {
		waitFor(t, n, "the saved name", func(map[identity.ID]Member) bool { return n.Network() == "saved" })
	}
}

// Two nodes that have booted each other do not wait for each other's word.
func TestNetworkNamesNodesThatBootedEachOther(t *testing.T) {
	t.Parallel()
	cfg := config(t, 147)
	a := nameless(t, 146, false, "", netip.AddrPortFrom(cfg.Bind, 0))
	b := nameless(t, 147, false, "", a.Addr())
	nameless(t, 148, true, "saved", a.Addr(), b.Addr())
	for _, n := range []*Cluster{a, b} {
		waitFor(t, n, "the name", func(map[identity.ID]Member) bool { return n.Network() == "saved" })
	}
}

// nameless starts a node that has to find out the name of its network.
func nameless(t *testing.T, n int, first bool, saved string, seeds ...netip.AddrPort) *Cluster {
	t.Helper()
	cfg := config(t, n, seeds...)
	cfg.Verify, cfg.patience, cfg.Meta.Network, cfg.Meta.First, cfg.SavedNetwork = checkEntry, 20, "", first, saved
	c, _ := start(t, cfg)
	return c
}
