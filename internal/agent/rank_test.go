package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"viver.lan/internal/boothost"
	"viver.lan/internal/bootnet"
	"viver.lan/internal/control"
	"viver.lan/internal/ether"
	"viver.lan/internal/manifest"
)

// Only live machines that run our image count, and who cannot get the whole
// image leaves it to others.
func TestRankAmong(t *testing.T) {
	image, other := manifest.Infohash{1}, manifest.Infohash{2}
	member := func(n byte, state control.MemberState, first bool, runs manifest.Infohash) control.Member {
		return control.Member{MAC: ether.MAC{2, 5: n}, Address: netip.AddrFrom4([4]byte{10, 0, 0, n}), HTTPPort: control.StandByPort, State: state, First: first, Image: runs}
	}
	madeUp := func(addresses ...string) (list []control.Member) {
		for n, a := range addresses {
			m := member(byte(n), "alive", true, image)
			m.MAC[0], m.Address = 0, netip.MustParseAddr(a)
			list = append(list, m)
		}
		return list
	}
	members := []control.Member{
		member(1, "dead", true, image),
		member(2, "alive", false, other),
		member(3, "left", false, image),
		member(4, "alive", false, image),
		member(5, "alive", false, image), // ourselves
	}
	volumes := madeUp("10.0.0.66", "10.0.0.67")
	for i := range volumes {
		volumes[i].HTTPPort = 0
	}
	published := &control.Published{Here: true, Image: other, Former: image, Offered: other}
	without := &control.Published{Here: true, Image: other, Former: image, Offered: image}
	keeps := func(n byte) control.Member {
		m := member(n, "alive", false, image)
		m.Keeps = other.String()[:16]
		return m
	}
	self := boothost.Member{MAC: ether.MAC{2, 5: 5}}
	for _, tc := range []struct {
		name   string
		status control.Status
		first  bool
		want   int
	}{
		{"behind the other live one", control.Status{Members: append(members[:4:4], member(3, "alive", false, image), members[4])}, false, 2},
		{"the medium's machine is dead", control.Status{Members: members}, false, 1},
		{"alone", control.Status{}, false, 1},
		{"pieces are out of reach", control.Status{Members: members, OutOfReach: 1}, false, boothost.Hosts},
		{"with the medium", control.Status{Members: members, OutOfReach: 1}, true, 0},
		{"beside a medium with another image", control.Status{Members: append(members[3:5:5], member(9, "alive", true, other))}, false, boothost.Hosts - 1},
		{"both with a medium, ours first", control.Status{Members: []control.Member{member(5, "alive", true, image), member(9, "alive", true, other)}}, true, 0},
		{"both with a medium, the other first", control.Status{Members: []control.Member{member(5, "alive", true, image), member(3, "alive", true, other)}}, true, boothost.Hosts - 1},
		{"another image without a medium", control.Status{Members: []control.Member{member(5, "alive", true, image), member(3, "alive", false, other)}}, true, 0},
		{"behind many made-up media of one machine", control.Status{Members: madeUp("10.0.0.66", "10.0.0.66", "10.0.0.66", "10.0.0.66")}, true, 1},
		{"behind made-up media of many machines", control.Status{Members: madeUp("10.0.0.66", "10.0.0.67", "10.0.0.68", "10.0.0.69")}, true, boothost.Hosts - 1},
		{"behind many made-up nodes of one machine", control.Status{Members: madeUp("10.0.0.66", "10.0.0.66", "10.0.0.66", "10.0.0.66")}, false, 1},
		{"beside volumes on any machine", control.Status{Members: volumes}, false, 1},
		{"with the medium, beside volumes on any machine", control.Status{Members: volumes}, true, 0},
		{"with the medium, beside a larger room with the image that is published", control.Status{Published: published, Members: []control.Member{member(5, "alive", true, image), member(3, "alive", false, other), member(4, "alive", false, other)}}, true, 0},
		{"behind the machine with the medium of the image before", control.Status{Published: published, Members: []control.Member{member(5, "alive", false, image), member(9, "alive", true, other)}}, false, 1},
		{"without room for the published image", control.Status{Published: without, Members: []control.Member{keeps(9)}}, false, boothost.Hosts - 1},
		{"with the medium, without room for the published image", control.Status{Published: without, Members: []control.Member{keeps(9)}}, true, boothost.Hosts - 1},
		{"with the published image, beside many without", control.Status{Published: published, Members: append(members[3:5:5], member(3, "alive", false, image), member(2, "alive", false, image), member(9, "alive", true, image))}, false, 1},
		{"with the published image, behind others that keep or run it", control.Status{Published: published, Members: []control.Member{keeps(2), member(3, "alive", false, other), member(4, "alive", false, image)}}, false, 2},
		{"beside what runs here", control.Status{Address: netip.MustParseAddr("10.0.0.66"), Members: madeUp("10.0.0.66", "10.0.0.66")}, true, 0},
	} {
		tc.status.Infohash = image
		self.First = tc.first
		if got := rankAmong(self, &tc.status); got != tc.want {
			t.Errorf("%s: rank %d, want %d", tc.name, got, tc.want)
		}
	}
}

// Machines that boot are sent to nodes that hold the image, as far as is known.
func TestWholePeers(t *testing.T) {
	var s control.Status
	s.Transfer.Pieces = 10
	for n, p := range []control.Peer{
		{Ours: true, Have: 10, Proof: "proved"},
		{Ours: true, Have: 10, Proof: "unproved"},
		{Ours: true, Have: 10, Proof: "failed"},
		{Have: 10}, // a stranger, whoever is a member at its address
		{Ours: true, Have: 9, Proof: "proved"},
		{Ours: true, Have: 10, Proof: "proved"}, // whose MAC address is another's
		{Ours: true, Have: 10, Proof: "proved"}, // a volume on any machine
	} {
		address := netip.AddrFrom4([4]byte{10, 0, 0, byte(n + 1)})
		p.Address = netip.AddrPortFrom(address, 6881)
		m := control.Member{MAC: ether.MAC{2, 5: byte(n)}, Address: address, HTTPPort: control.StandByPort, State: control.Alive}
		switch n {
		case 0:
			m.HTTPPort = control.HTTPPort
		case 5:
			m.NameState = control.Disputed
		case 6:
			m.HTTPPort = 0
		}
		s.Peers, s.Members = append(s.Peers, p), append(s.Members, m, m)
	}
	s.Peers = append(s.Peers, control.Peer{Address: netip.MustParseAddrPort("10.0.0.1:9"), Have: 1}) // beside it
	if got, want := fmt.Sprint(wholePeers(boothost.Member{MAC: ether.MAC{9}}, &s)), "[10.0.0.1:80 10.0.0.2:6880]"; got != want {
		t.Errorf("machines are sent to %s, want %s", got, want)
	}
}

// The rank follows what the block daemon says, and changes by itself some time after a
// machine with a new medium began.
func TestRanksAreAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		image := manifest.Infohash{1}
		boot := &control.Boot{MAC: ether.MAC{2, 5: 5}}
		ranking := newRanking(place{boot: boot}, slog.New(slog.DiscardHandler))
		changes := make(chan bool)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			defer close(changes)
			for serving := true; ranking.await(ctx, serving) == nil; serving = !serving {
				changes <- serving
			}
		}()
		alone, crowd := &control.Status{Infohash: image}, &control.Status{Infohash: image}
		for n := range byte(boothost.Hosts) {
			crowd.Members = append(crowd.Members, control.Member{MAC: ether.MAC{2, 5: n}, Address: netip.AddrFrom4([4]byte{10, 0, 0, n}), HTTPPort: control.HTTPPort, State: control.Alive, First: true, Image: image})
		}
		for _, s := range []*control.Status{alone, crowd, alone} {
			synctest.Wait()
			ranking.take(s)
			if serving := <-changes; serving != (s == alone) {
				t.Errorf("beside %d others it serves: %v", len(s.Members), serving)
			}
		}
		cancel()
		if serving, more := <-changes; more {
			t.Errorf("after the end it serves: %v", serving)
		}

		boot.First = true
		ranking = newRanking(place{boot: boot, network: bootnet.Network{Lease: bootnet.Lease{Viver: true}}}, slog.New(slog.DiscardHandler))
		ranking.take(alone)
		left := ranking.decide()
		if ranking.current() != boothost.Hosts-1 || left != acquaintTime {
			t.Errorf("a new medium has rank %d for %s", ranking.current(), left)
		}
		time.Sleep(left)
		if ranking.decide(); ranking.current() != 0 {
			t.Errorf("and rank %d afterwards", ranking.current())
		}
	})
}
