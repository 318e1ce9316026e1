package cluster

import (
	"net/netip"
	"testing"
	"time"

	"viver.lan/internal/identity"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/manifest"
)

func TestGroups(t *testing.T) {
	now := time.Now()
	medium := netip.MustParseAddr("10.77.0.9")
	called := func(image byte, machines uint16) beacon {
		return beacon{infohash: manifest.Infohash{image}, gossip: netip.AddrPortFrom(medium, 7946), machines: machines, medium: medium}
	}
	c := &Cluster{meta: Meta{Infohash: image()}, groups: groups{}}
	if err := c.worthJoining(called(1, 3), medium, now); err == nil {
		t.Error("a machine with another image is joined")
	}
	if err := c.worthJoining(called(2, 1), netip.MustParseAddr("10.77.0.8"), now); err == nil {
		t.Error("a beacon in another's name is followed")
	}
	published := &Cluster{meta: Meta{Infohash: image()}, images: []manifest.Infohash{{1}}, groups: groups{}, beaconJoins: rate{limit: 1, period: time.Second}}
	if err := published.worthJoining(called(1, 3), medium, now); err != nil {
		t.Errorf("a machine with the published image is not joined: %v", err)
	}
	if got := c.Groups(); len(got) != 1 || got[0] != (Group{manifest.Infohash{1}, 3, medium}) {
		t.Errorf("heard: %+v", got)
	}
	for n := range 100 {
		c.groups.add(called(byte(n), 1), now)
	}
	if len(c.groups) > maxGroups {
		t.Errorf("%d groups are remembered", len(c.groups))
	}
	c.groups.add(called(200, 1), now.Add(2*groupTime))
	if len(c.groups) != 1 {
		t.Errorf("%d groups are remembered that nobody calls any more", len(c.groups)-1)
	}
}

func TestOwnGroup(t *testing.T) {
	at := func(text string) netip.AddrPort { return netip.MustParseAddrPort(text + ":7946") }
	c := &Cluster{addr: at("10.77.0.5"), meta: Meta{Infohash: image()}, members: map[identity.ID]Member{
		identitytest.Named("self"):   {Self: true, State: Alive, Addr: at("10.77.0.5")},
		identitytest.Named("node"):   {State: Alive, Addr: at("10.77.0.1")},
		identitytest.Named("first"):  {State: Alive, Addr: at("10.77.0.3"), Meta: Meta{First: true, HTTPPort: 80}},
		identitytest.Named("volume"): {State: Alive, Addr: at("10.77.0.2"), Meta: Meta{First: true}},
		identitytest.Named("dead"):   {State: Dead, Addr: at("10.77.0.2"), Meta: Meta{First: true, HTTPPort: 80}},
		identitytest.Named("other"):  {State: Alive, otherImage: true, Addr: at("10.77.0.2"), Meta: Meta{First: true, HTTPPort: 80}},
	}}
	if got := c.group(); got != (Group{image(), 4, netip.MustParseAddr("10.77.0.3")}) {
		t.Errorf("our group: %+v", got)
	}
	c.meta.First, c.meta.HTTPPort, c.members = true, 80, nil
	if got := c.group(); got.Machines != 1 || got.Medium != c.addr.Addr() {
		t.Errorf("alone with a medium: %+v", got)
	}
}
