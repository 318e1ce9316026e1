package cluster

import (
	"context"
	"encoding/binary"
	"math"
	"net"
	"sync"
	"testing"
	"time"

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

func forgedDeath(label string, incarnation uint32, who, by NodeID) []byte {
	return forge(label, msgDead, field{"Incarnation", incarnation}, field{"Node", string(who)}, field{"From", string(by)})
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
func saysDead(c *Cluster, id NodeID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.accused[id] != nil
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
		packets func(victim Member) [][]byte
		// lasting ones are still believed by memberlist when we look.
		lasting bool
	}{
		{"another label", func(v Member) [][]byte {
			return [][]byte{forgedDeath("viver/2", 9, v.ID, "x"), forgedDeath("", 9, v.ID, "x")}
		}, false},
		{"old", func(v Member) [][]byte { return [][]byte{forgedDeath(label, 0, v.ID, "x")} }, false},
		{"suspicion", func(v Member) [][]byte {
			return [][]byte{forge(label, msgSuspect, field{"Incarnation", uint32(9)}, field{"Node", string(v.ID)}, field{"From", "x"})}
		}, false},
		{"death", func(v Member) [][]byte { return [][]byte{forgedDeath(label, 9, v.ID, "x")} }, false},
		{"goodbye", func(v Member) [][]byte { return [][]byte{forgedDeath(label, 9, v.ID, v.ID)} }, true},
		// No number is greater than this one: the victim cannot object.
		{"last word", func(v Member) [][]byte { return [][]byte{forgedDeath(label, math.MaxUint32, v.ID, "x")} }, true},
	} {
		wg.Go(func() {
			t.Run(test.name, func(t *testing.T) {
				members, _ := room(t, 110+n, 3)
				victim := members[1].Members()[1]
				if !victim.Self {
					t.Fatalf("not itself: %+v", victim)
				}
				ctx, cancel := context.WithTimeout(t.Context(), 3*asks*askEvery)
				defer cancel()
				throw(t, members[0], test.packets(victim)...)
				if test.lasting {
					noticed := time.Now()
					for !saysDead(members[0], victim.ID) { // for a moment
						if time.Since(noticed) > time.Minute {
							t.Fatal("the forgery is no good: nobody noticed it")
						}
						time.Sleep(time.Millisecond)
					}
				}
				aliveAllAlong(t, members[0], victim, ctx)
				aliveAllAlong(t, members[2], victim, ctx)
			})
		})
	}
	wg.Wait()
}

// The SSH host key that a member told first stays while it lives, whoever names
// another; who comes back may bring a new one.
func TestForgedHostKey(t *testing.T) {
	t.Parallel()
	members, kill := room(t, 121, 2)
	victim := members[1].self()
	keyIs := func(want sshkey.Key) func(map[NodeID]Member) bool {
		return func(m map[NodeID]Member) bool { return m[victim.ID].Meta.HostKey == want }
	}
	own := victim.Meta
	own.HostKey = sshkey.Key{1}
	if err := members[1].UpdateMeta(t.Context(), own); err != nil {
		t.Fatal(err)
	}
	waitFor(t, members[0], "the key is heard", keyIs(own.HostKey))
	forged := own
	forged.HostKey, forged.Hostname = sshkey.Key{66}, "forged"
	ip := victim.Addr.Addr().As4()
	throw(t, members[0], forge(label, msgAlive, field{"Incarnation", uint32(1000)}, field{"Node", string(victim.ID)}, field{"Addr", ip[:]},
		field{"Port", uint32(victim.Addr.Port())}, field{"Meta", forged.marshal()}, field{"Vsn", []byte{1, 5, 2, 0, 0, 0}}))
	for _, name := range []string{"forged", own.Hostname} { // the stranger is heard, then the victim objects
		waitFor(t, members[0], "the name "+name, func(m map[NodeID]Member) bool {
			if key := m[victim.ID].Meta.HostKey; key != own.HostKey {
				t.Fatalf("a stranger gave it the key %s", key)
			}
			return m[victim.ID].Meta.Hostname == name
		})
	}
	kill[1]()
	waitFor(t, members[0], "it is gone", became(Dead, victim.ID))
	cfg := config(t, 2, members[0].Addr())
	cfg.ID, cfg.Bind, cfg.Meta.HostKey = victim.ID, victim.Addr.Addr(), sshkey.Key{2}
	start(t, cfg)
	waitFor(t, members[0], "it is back with another key", keyIs(cfg.Meta.HostKey))
}

// A name whose death is reported cannot be taken over while its owner answers.
func TestForgedAddress(t *testing.T) {
	t.Parallel()
	members, _ := room(t, 120, 2)
	victim := members[1].Members()[1]
	ctx, cancel := context.WithTimeout(t.Context(), 3*asks*askEvery)
	defer cancel()
	throw(t, members[0], forgedDeath(label, math.MaxUint32, victim.ID, "x"))
	go func() {
		for range 20 { // until the name would be free to take
			throw(t, members[0], forge(label, msgAlive, field{"Incarnation", uint32(math.MaxUint32)}, field{"Node", string(victim.ID)},
				field{"Addr", []byte{127, 0, 120, 99}}, field{"Port", uint32(7946)}, field{"Meta", victim.Meta.marshal()},
				field{"Vsn", []byte{1, 5, 2, 0, 0, 0}}))
			if !sleep(ctx, 200*time.Millisecond) {
				return
			}
		}
	}()
	aliveAllAlong(t, members[0], victim, ctx)
	// It heals: memberlist forgets its dead, and the member is joined anew.
	meta := Meta{Hostname: "still-here", Infohash: image()}
	if err := members[1].UpdateMeta(t.Context(), meta); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	waitFor(t, members[0], "its word counts again", func(m map[NodeID]Member) bool { return m[victim.ID].Meta == meta })
	t.Logf("its word counts again %.0f s after the forgery", time.Since(begin).Seconds())
}
