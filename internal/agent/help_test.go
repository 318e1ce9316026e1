package agent

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"viver.lan/internal/boothost"
	"viver.lan/internal/control"
	"viver.lan/internal/ether"
	"viver.lan/internal/manifest"
)

// Three members with low MAC addresses at three addresses have all ranks that serve, and serve
// nobody. A machine that goes on asking is served by the next nodes nevertheless, by
// more the longer it asks, and by those whose rank serves at once in any case.
func TestMembersCannotSilenceAllBootHosts(t *testing.T) {
	image := manifest.Infohash{1}
	status := &control.Status{Infohash: image}
	for _, a := range []string{"1", "2", "3"} {
		status.Members = append(status.Members, control.Member{MAC: ether.MAC{5: a[0] - '0'}, Address: netip.MustParseAddr("10.0.0.6" + a), HTTPPort: control.HTTPPort, State: control.Alive, First: true, Image: image})
	}
	silenced := rankAmong(boothost.Member{MAC: ether.MAC{2, 5: 5}}, status)
	if silenced < boothost.Hosts {
		t.Fatalf("rank %d: nobody is silenced", silenced)
	}
	ask, err := dhcpv4.NewDiscovery(net.HardwareAddr{2, 0, 0, 0, 0, 9}, dhcpv4.WithOption(dhcpv4.OptClassIdentifier("PXEClient:Arch:00007:UNDI:003000")))
	if err != nil {
		t.Fatal(err)
	}
	for place, waits := range map[int]time.Duration{
		1: 0, silenced: helpAfter, 2 * boothost.Hosts: 2 * helpAfter, 1000: helpGroups * helpAfter,
	} {
		now := time.Unix(1e9, 0)
		h := newHelp(func() time.Time { return now }, slog.New(slog.DiscardHandler))
		want := min(place, boothost.Hosts-1)
		rank := func() int { rank, _ := h.rank(place); return rank }
		helps := func() bool { return rank() == want }
		if helps() != (waits == 0) {
			t.Errorf("place %d: rank %d before anybody asks", place, rank())
		}
		for asked := time.Duration(0); asked <= waits; asked += 4 * time.Second {
			if h.observe(ask); helps() != (asked >= waits) {
				t.Errorf("place %d: rank %d after a machine asked for %s", place, rank(), asked)
			}
			now = now.Add(4 * time.Second)
		}
		if now = now.Add(helpTime); waits > 0 && helps() {
			t.Errorf("place %d: it serves for ever", place)
		}
	}
}
