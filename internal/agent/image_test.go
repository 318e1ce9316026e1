package agent

import (
	"net/netip"
	"slices"
	"testing"

	"viver.lan/internal/boothost"
	"viver.lan/internal/control"
	"viver.lan/internal/ether"
	"viver.lan/internal/event"
	"viver.lan/internal/manifest"
)

// What machines boot, and who is asked for its files, follows the publication.
func TestOffered(t *testing.T) {
	own, next := manifest.Infohash{1}, manifest.Infohash{2}
	at := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, n}) }
	member := func(n byte) control.Member {
		return control.Member{MAC: ether.MAC{2, 5: n}, Address: at(n), HTTPPort: control.StandByPort, State: control.Alive, Image: own}
	}
	whole := control.Peer{Address: netip.AddrPortFrom(at(3), control.SwarmPort), Ours: true, Have: 9}
	second := &control.Second{Image: next, Whole: []netip.Addr{at(4), at(9)}}
	for _, c := range []struct {
		name      string
		published *control.Published
		want      offer
		peer      byte
	}{
		{"nothing", nil, offer{own, manifest.Infohash{}}, 3},
		{"not here yet", &control.Published{Version: 1}, offer{own, manifest.Infohash{}}, 3},
		{"no room for it", &control.Published{Here: true, Image: next, Former: own, Offered: own}, offer{own, manifest.Infohash{}}, 3},
		{"on its way", &control.Published{Here: true, Image: next, Former: own, Offered: own, Second: second}, offer{own, next}, 3},
		{"here", &control.Published{Here: true, Image: next, Former: own, Offered: next, Second: second}, offer{next, own}, 4},
	} {
		s := &control.Status{Infohash: own, Published: c.published, Members: []control.Member{member(3), member(4), member(5)}, Peers: []control.Peer{whole},
			Transfer: event.Transfer{Pieces: 9}}
		if got := offered(s); got != c.want {
			t.Errorf("%s: %v is offered, want %v", c.name, got, c.want)
		}
		if got, want := wholePeers(boothost.Member{MAC: ether.MAC{2, 5: 5}}, s), []netip.AddrPort{netip.AddrPortFrom(at(c.peer), control.StandByPort)}; !slices.Equal(got, want) {
			t.Errorf("%s: machines are sent to %v, want %v", c.name, got, want)
		}
	}
}
