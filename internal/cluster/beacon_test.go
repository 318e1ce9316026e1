package cluster

import (
	"net/netip"
	"testing"
	"time"

	"viver.lan/internal/identity"
	"viver.lan/internal/identity/identitytest"
	"viver.lan/internal/manifest"
)

func call(addr string) beacon {
	return beacon{infohash: image(), gossip: netip.MustParseAddrPort(addr), machines: 2, medium: netip.MustParseAddr("10.77.0.1")}
}

func TestBeacon(t *testing.T) {
	want := call("10.77.0.2:7946")
	p := want.marshal()
	for name, p := range map[string][]byte{"as sent": p, "of a later version": append(p, 1, 2, 3)} {
		if b, err := parseBeacon(p); err != nil || b != want {
			t.Errorf("%s: %+v, %v", name, b, err)
		}
	}
	earlier := want
	earlier.machines, earlier.medium = 0, netip.Addr{}
	if b, err := parseBeacon(p[:beaconSize]); err != nil || b != earlier {
		t.Errorf("of an earlier version: %+v, %v", b, err)
	}
	for name, p := range map[string][]byte{
		"nothing":      nil,
		"short":        p[:beaconSize-1],
		"other gossip": append([]byte("consul"), p...),
		"port 0":       call("10.77.0.2:0").marshal(),
		"any address":  call("0.0.0.0:7946").marshal(),
		"multicast":    call("224.0.0.254:7946").marshal(),
		"loopback":     call("127.0.0.1:7946").marshal(),
	} {
		if b, err := parseBeacon(p); err == nil {
			t.Errorf("%s is taken for %+v", name, b)
		}
	}
}

func FuzzParseBeacon(f *testing.F) {
	f.Add(call("10.77.0.2:7946").marshal())
	f.Add([]byte(label))
	f.Fuzz(func(t *testing.T, p []byte) {
		b, err := parseBeacon(p)
		if err != nil {
			return
		}
		if back, err := parseBeacon(b.marshal()); err != nil || back != b {
			t.Errorf("%+v came back as %+v, %v", b, back, err)
		}
	})
}

func TestWhichBeaconIsFollowed(t *testing.T) {
	c := &Cluster{
		cfg:         Config{Network: netip.MustParsePrefix("10.77.0.0/16")},
		addr:        netip.MustParseAddrPort("10.77.0.1:7946"),
		meta:        Meta{Infohash: image()},
		beaconJoins: rate{limit: 4, period: time.Second},
		members: map[identity.ID]Member{
			identitytest.Named("alive"):   {ID: identitytest.Named("alive"), State: Alive, Addr: netip.MustParseAddrPort("10.77.0.2:7946")},
			identitytest.Named("dead"):    {ID: identitytest.Named("dead"), State: Dead, Addr: netip.MustParseAddrPort("10.77.0.3:7946")},
			identitytest.Named("suspect"): {ID: identitytest.Named("suspect"), State: Alive, Addr: netip.MustParseAddrPort("10.77.0.4:7946")},
		},
		groups:   groups{},
		suspects: map[identity.ID]*suspicion{identitytest.Named("suspect"): {}},
	}
	other := call("10.77.0.9:7946")
	other.infohash = manifest.Infohash{0xbb}
	now := time.Now()
	for _, test := range []struct {
		what string
		b    beacon
		from string
		want bool
	}{
		{"a new machine", call("10.77.0.9:7946"), "10.77.0.9", true},
		{"a dead member", call("10.77.0.3:7946"), "10.77.0.3", true},
		{"one whose death is reported", call("10.77.0.4:7946"), "10.77.0.4", true},
		{"a living member", call("10.77.0.2:7946"), "10.77.0.2", false},
		{"our own", call("10.77.0.1:7946"), "10.77.0.1", false},
		{"in another's name", call("10.77.0.9:7946"), "10.77.0.8", false},
		{"from outside", call("10.78.0.9:7946"), "10.78.0.9", false},
		{"another image", other, "10.77.0.9", false},
	} {
		if err := c.worthJoining(test.b, netip.MustParseAddr(test.from), now); (err == nil) != test.want {
			t.Errorf("%s: %v", test.what, err)
		}
	}
	followed := 0
	for range 1000 {
		if c.worthJoining(call("10.77.0.9:7946"), netip.MustParseAddr("10.77.0.9"), now) == nil {
			followed++
		}
	}
	if followed != 1 { // three were above, within this second
		t.Errorf("%d of a flood are followed", followed)
	}
	if err := c.worthJoining(call("10.77.0.9:7946"), netip.MustParseAddr("10.77.0.9"), now.Add(time.Second)); err != nil {
		t.Errorf("a second after the flood: %v", err)
	}
	c.left = true
	if c.worthJoining(call("10.77.0.9:7946"), netip.MustParseAddr("10.77.0.9"), now.Add(time.Minute)) == nil {
		t.Error("followed after the goodbye")
	}
}

func TestBeaconsAreRareInCompany(t *testing.T) {
	for others, most := range map[int]float64{0: 1, 1: 1, 15: 1, 999: 1} {
		perSecond := float64(others+1) / beaconPause(others).Seconds()
		if perSecond > most {
			t.Errorf("%d machines call %.1f times a second", others+1, perSecond)
		}
	}
}
