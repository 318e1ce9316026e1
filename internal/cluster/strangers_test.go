package cluster

import (
	"context"
	"encoding/binary"
	"math"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"

	"viver.lan/internal/identity"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/sleep"
	"viver.lan/internal/sshkey"
)

// field is one of a memberlist message: text, bytes or a number.
type field struct {
	name  string
	value any
}

// forge makes a packet as memberlist would: label, kind and the fields in
// MessagePack (https://github.com/msgpack/msgpack/blob/master/spec.md).
func forge(label string, kind byte, fields ...field) []byte {
	p := append([]byte{244, byte(len(label))}, label...)
	p = append(p, kind, 0x80|byte(len(fields)))
	text := func(s string) { p = append(append(p, 0xd9, byte(len(s))), s...) }
	for _, f := range fields {
		text(f.name)
		switch v := f.value.(type) {
		case string:
			text(v)
		case []byte:
			p = append(append(p, 0xc4, byte(len(v))), v...)
		case uint32:
			p = binary.BigEndian.AppendUint32(append(p, 0xce), v)
		}
	}
	return p
}

func forgedDeath(label string, incarnation uint32, who identity.ID, by string) []byte {
	return forge(label, msgDead, field{"Incarnation", incarnation}, field{"Node", who.String()}, field{"From", by})
}

func throw(t *testing.T, at *Cluster, packets ...[]byte) {
	t.Helper()
	udp, err := net.Dial("udp", at.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for _, p := range packets {
		if _, err := udp.Write(p); err != nil {
			t.Fatal(err)
		}
	}
}

// saysDead reports how memberlist itself sees a member.
func saysDead(c *Cluster, id identity.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.suspects[id] != nil
}

// aliveAllAlong fails the test when c calls a member anything but alive, at
// the known address, before ctx ends.
func aliveAllAlong(t *testing.T, c *Cluster, want Member, ctx context.Context) {
	t.Helper()
	changed, stop := c.Watch()
	defer stop()
	for {
		for _, m := range c.Members() {
			if m.ID == want.ID && (m.State != Alive || m.Addr != want.Addr) {
				t.Errorf("a stranger made %s %s at %s, it lives at %s", m.ID, m.State, m.Addr, want.Addr)
				return
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// Whatever a stranger says of a member that lives, it stays a member.
func TestForgedDeaths(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup // they mostly wait, so all at once
	for n, test := range []struct {
		name    string
		packets func(victim Member, incarnation uint32) [][]byte
		// lasting ones are still believed by memberlist when we look.
		lasting bool
	}{
		{"another label", func(v Member, n uint32) [][]byte {
			return [][]byte{forgedDeath("viver/2", n, v.ID, "x"), forgedDeath("", n, v.ID, "x")}
		}, false},
		{"old", func(v Member, _ uint32) [][]byte { return [][]byte{forgedDeath(label, 0, v.ID, "x")} }, false},
		{"suspicion", func(v Member, n uint32) [][]byte {
			return [][]byte{forge(label, msgSuspect, field{"Incarnation", n}, field{"Node", v.ID.String()}, field{"From", "x"})}
		}, false},
		{"death", func(v Member, n uint32) [][]byte { return [][]byte{forgedDeath(label, n, v.ID, "x")} }, false},
		{"goodbye", func(v Member, n uint32) [][]byte { return [][]byte{forgedDeath(label, n, v.ID, v.ID.String())} }, true},
		// No incarnation is greater than this one: the victim cannot refute it.
		{"last word", func(v Member, _ uint32) [][]byte { return [][]byte{forgedDeath(label, math.MaxUint32, v.ID, "x")} }, true},
	} {
		wg.Go(func() {
			t.Run(test.name, func(t *testing.T) {
				members, _ := room(t, 110+n, 3)
				victim := members[1].self()
				if !victim.Self {
					t.Fatalf("not itself: %+v", victim)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 3*suspectProbes*suspectProbeEvery)
				defer cancel()
				throw(t, members[0], test.packets(victim, 9)...)
				// It is noticed for a moment, which we may miss.
				for n := uint32(1); test.lasting && !saysDead(members[0], victim.ID); n++ {
					if n%200 == 0 {
						throw(t, members[0], test.packets(victim, 9+n)...)
					}
					if n > 60_000 {
						t.Fatal("the forgery is no good: nobody noticed it")
					}
					time.Sleep(time.Millisecond)
				}
				aliveAllAlong(t, members[0], victim, ctx)
				aliveAllAlong(t, members[2], victim, ctx)
			})
		})
	}
	wg.Wait()
}

// introduce is how a member that holds the key makes itself known.
func introduce(key identity.Key, at netip.AddrPort, meta Meta, sequence uint64, protocol ...byte) []byte {
	return aliveMessage(key.ID(), at, meta.sign(key, at, sequence), protocol...)
}

// aliveMessage is a member's facts as memberlist brings them.
func aliveMessage(id identity.ID, at netip.AddrPort, facts []byte, protocol ...byte) []byte {
	ip := at.Addr().As4()
	return forge(label, msgAlive, field{"Incarnation", uint32(1000)}, field{"Node", id.String()}, field{"Addr", ip[:]},
		field{"Port", uint32(at.Port())}, field{"Meta", facts}, field{"Vsn", append(protocol, 0, 0, 0)})
}

// What a member says of itself nobody else can say, whether somebody makes it up,
// signs it with another key, moves it to another address or repeats what the
// member said before.
func TestForgedFacts(t *testing.T) {
	t.Parallel()
	members, kill := room(t, 121, 2)
	victim, evil := members[1].self(), identitytest.Key(t, "evil")
	own := victim.Meta
	own.HostKey = sshkey.Key{1}
	early := []byte(victim.raw)
	if err := members[1].UpdateMeta(t.Context(), func(m *Meta) { *m = own }); err != nil {
		t.Fatal(err)
	}
	is := func(want Meta) func(map[identity.ID]Member) bool {
		return func(m map[identity.ID]Member) bool {
			return m[victim.ID].State == Alive && reflect.DeepEqual(m[victim.ID].Meta, want)
		}
	}
	waitFor(t, members[0], "the key is heard", is(own))
	forged := own
	forged.HostKey, forged.Hostname = sshkey.Key{66}, "forged"
	elsewhere := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 121, 99}), victim.Addr.Port())
	unsigned := forged.sign(evil, victim.Addr, 1<<40)
	unsigned[1]++
	now := []byte(members[1].self().raw)
	for _, facts := range [][]byte{unsigned, forged.sign(evil, victim.Addr, 1<<40), []byte("junk"), nil, early} {
		throw(t, members[0], aliveMessage(victim.ID, victim.Addr, facts, 1, 5, 2))
		throw(t, members[0], aliveMessage(victim.ID, elsewhere, facts, 1, 5, 2))
	}
	throw(t, members[0], aliveMessage(victim.ID, elsewhere, now, 1, 5, 2))
	// Who comes after the forgeries is heard, so they have been, too.
	throw(t, members[0], introduce(evil, elsewhere, Meta{Hostname: "evil"}, 1, 1, 5, 2))
	waitFor(t, members[0], "all is heard", func(m map[identity.ID]Member) bool { return m[evil.ID()].State == Alive && is(own)(m) })
	shown := members[0].Strangers()
	if len(shown) == 0 || len(shown) > 2 || shown[len(shown)-1].Addr != elsewhere.Addr() {
		t.Errorf("strangers: %+v", shown)
	}
	kill[1]()
	waitFor(t, members[0], "it is gone", became(Dead, victim.ID))
	throw(t, members[0], aliveMessage(victim.ID, victim.Addr, early, 1, 5, 2))
	again := config(t, 2, members[0].Addr())
	again.Key, again.Bind, again.Meta = members[1].cfg.Key, victim.Addr.Addr(), own
	again.Start = 2
	again.Meta.HostKey = sshkey.Key{2}
	start(t, again)
	waitFor(t, members[0], "it is back with another key", func(m map[identity.ID]Member) bool {
		if v := m[victim.ID]; v.State == Alive && v.Meta.HostKey == (sshkey.Key{}) {
			t.Fatalf("what it said long ago counts again: %+v", v)
		}
		return is(again.Meta)(m)
	})
}

// A name whose death is reported cannot be taken over while its owner answers.
func TestForgedAddress(t *testing.T) {
	t.Parallel()
	members, _ := room(t, 120, 2)
	victim := members[1].self()
	ctx, cancel := context.WithTimeout(t.Context(), 3*suspectProbes*suspectProbeEvery)
	defer cancel()
	throw(t, members[0], forgedDeath(label, math.MaxUint32, victim.ID, "x"))
	go func() {
		for range 20 { // until the name would be free to take
			throw(t, members[0], forge(label, msgAlive, field{"Incarnation", uint32(math.MaxUint32)}, field{"Node", victim.ID.String()},
				field{"Addr", []byte{127, 0, 120, 99}}, field{"Port", uint32(7946)}, field{"Meta", []byte(victim.raw)},
				field{"Vsn", []byte{1, 5, 2, 0, 0, 0}}))
			if sleep.For(ctx, 200*time.Millisecond) != nil {
				return
			}
		}
	}()
	aliveAllAlong(t, members[0], victim, ctx)
	// It heals: memberlist forgets its dead, and the member is joined again.
	meta := Meta{Hostname: "still-here", Infohash: image(), Network: network}
	if err := members[1].UpdateMeta(t.Context(), func(m *Meta) { *m = meta }); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	waitFor(t, members[0], "its facts count again", func(m map[identity.ID]Member) bool { return reflect.DeepEqual(m[victim.ID].Meta, meta) })
	t.Logf("its facts count again %.0f s after the forgery", time.Since(begin).Seconds())
}

// What a member says counts whatever number somebody else gave to what it said
// before: others go by its own numbers, and the member finds its way back below the
// greatest that memberlist knows.
func TestForgedIncarnations(t *testing.T) {
	t.Parallel()
	members, _ := room(t, 122, 3)
	victim := members[1].self()
	ip := victim.Addr.Addr().As4()
	repeated := func(incarnation uint32, ip []byte) []byte {
		return forge(label, msgAlive, field{"Incarnation", incarnation}, field{"Node", victim.ID.String()}, field{"Addr", ip},
			field{"Port", uint32(victim.Addr.Port())}, field{"Meta", []byte(victim.raw)}, field{"Vsn", []byte{1, 5, 2, 0, 0, 0}})
	}
	mapped := victim.Addr.Addr().Unmap().As16()
	for _, c := range []*Cluster{members[0], members[2]} {
		throw(t, c, repeated(math.MaxUint32, mapped[:]), repeated(math.MaxUint32, ip[:]))
	}
	throw(t, members[1], forge(label, msgSuspect, field{"Incarnation", uint32(math.MaxUint32 - 1)}, field{"Node", victim.ID.String()}, field{"From", "x"}))
	evil := identitytest.Key(t, "evil too")
	elsewhere := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 122, 99}), victim.Addr.Port())
	for _, c := range members { // who comes after the forgeries is heard, so they have been, too
		throw(t, c, introduce(evil, elsewhere, Meta{Hostname: "evil"}, 1, 1, 5, 2))
		waitFor(t, c, "all is heard", func(m map[identity.ID]Member) bool { return m[evil.ID()].State == Alive })
	}
	said := victim.Meta
	for key := range 3 {
		said.HostKey = sshkey.Key{byte(key + 1)}
		if err := members[1].UpdateMeta(t.Context(), func(m *Meta) { *m = said }); err != nil {
			t.Fatal(err)
		}
		for _, c := range []*Cluster{members[0], members[2]} {
			waitFor(t, c, "what it says now", func(m map[identity.ID]Member) bool {
				return m[victim.ID].State == Alive && reflect.DeepEqual(m[victim.ID].Meta, said)
			})
		}
	}
	// So does its goodbye, although memberlist takes none below that number.
	late := identitytest.Key(t, "evil three") // not the one before, who may be dead to memberlist by now
	throw(t, members[1], forge(label, msgSuspect, field{"Incarnation", uint32(math.MaxUint32 - 1)}, field{"Node", victim.ID.String()}, field{"From", "x"}),
		introduce(late, elsewhere, Meta{Hostname: "late"}, 1, 1, 5, 2))
	waitFor(t, members[1], "all is heard", func(m map[identity.ID]Member) bool { return m[late.ID()].State == Alive })
	members[1].mu.Lock()
	members[1].meta.leaving = true
	members[1].mu.Unlock()
	for _, c := range []*Cluster{members[0], members[2]} {
		heard := func() bool {
			return slices.ContainsFunc(c.Members(), func(m Member) bool { return m.ID == victim.ID && m.State == Left })
		}
		for end := time.Now().Add(3 * time.Minute); !heard(); { // those who drop it do not pass it on
			if err := members[1].announce(t.Context()); err != nil || time.Now().After(end) {
				t.Fatal("never: its goodbye: ", err)
			}
		}
	}
}

// Nobody's death is believed without a probe while of those that are probed some live.
func TestManySuspects(t *testing.T) {
	t.Parallel()
	c, err := New(config(t, 143))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for n := range 4 * maxSuspectsProbed {
		id := identitytest.Named(name(n))
		c.members[id], c.suspects[id] = Member{ID: id, State: Alive}, &suspicion{}
	}
	dead := func() (n int) {
		for _, m := range c.Members() {
			if m.State == Dead {
				n++
			}
		}
		return n
	}
	for range 2 * suspectProbes {
		probed := c.suspectsNow()[:maxSuspectsProbed]
		answered := make(map[identity.ID]bool)
		for _, m := range probed {
			answered[m.ID] = true
		}
		c.endRound(probed, answered)
	}
	if n := dead(); n > 0 {
		t.Errorf("%d that live are dead, by what others say", n)
	}
	for range suspectProbes { // a room is switched off
		c.endRound(c.suspectsNow()[:maxSuspectsProbed], nil)
	}
	if n := dead(); n != 4*maxSuspectsProbed {
		t.Errorf("%d of %d are dead", n, 4*maxSuspectsProbed)
	}
}

// Whoever makes up members at one address does not take the places of others.
func TestMembersOfOneAddress(t *testing.T) {
	t.Parallel()
	c, err := New(config(t, 144))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	liar, other := netip.MustParseAddrPort("127.0.144.9:7946"), netip.MustParseAddrPort("127.0.144.8:7946")
	comes := func(who string, at netip.AddrPort) error {
		key := identitytest.Key(t, who)
		return (&delegate{c}).NotifyAlive(&memberlist.Node{Name: key.ID().String(), Addr: at.Addr().AsSlice(), Port: at.Port(),
			Meta: Meta{Hostname: who}.sign(key, at, 1), PMin: 1, PMax: 5, PCur: protocolVersion})
	}
	fill := func(upTo int) {
		for n := len(c.members); n < upTo; n++ {
			id := identitytest.Named(name(n))
			c.members[id] = Member{ID: id, Addr: liar, State: Alive}
		}
	}
	if fill(maxPerAddress + 1); comes("one-more", liar) != nil {
		t.Error("a machine with many members is refused where there is room")
	}
	if fill(maxMembers / 2); comes("too-much", liar) == nil || comes("other", other) != nil {
		t.Error("members of one address take all places")
	}
	if fill(maxMembers); comes("other", other) == nil {
		t.Error("there is no bound")
	}
}
