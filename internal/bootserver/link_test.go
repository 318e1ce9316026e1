package bootserver

import (
	"net/netip"
	"strings"
	"testing"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/ether"
)

func testLink(name string, last byte, edit func(*link)) link {
	l := link{Card: bootnet.Card{Index: int(last), Name: name, MAC: ether.MAC{2, 0, 0, 0, 0, last}}, up: true, carrier: true, address: netip.MustParsePrefix("10.0.0.1/24")}
	if edit != nil {
		edit(&l)
	}
	return l
}

func TestChoose(t *testing.T) {
	good, other := testLink("eth0", 1, nil), testLink("br0", 2, nil)
	down := testLink("eth2", 3, func(l *link) { l.up = false })
	loose := testLink("eth3", 4, func(l *link) { l.carrier = false })
	bare := testLink("eth4", 5, func(l *link) { l.address = netip.Prefix{} })
	narrow := testLink("eth5", 6, func(l *link) { l.address = netip.MustParsePrefix("10.0.0.1/32") })
	all := []link{good, other, down, loose, bare, narrow}
	for _, c := range []struct {
		name string
		list []link
		want string
		got  string // its name, or words of the error
	}{
		{"the only one that can be served", []link{down, good, bare}, "", "eth0"},
		{"several", all, "", "several network interfaces could be served: name the one whose machines are to boot with --interface\n  - eth0 (02:00:00:00:00:01): 10.0.0.1/24\n  - br0"},
		{"none", []link{down, loose}, "", "no network interface can be served\n  - eth2"},
		{"no interface at all", nil, "", "there is none"},
		{"by name", all, "br0", "br0"},
		{"by MAC address", all, "02:00:00:00:00:02", "br0"},
		{"one that is missing", all, "eth9", "no network interface eth9\n  - eth0"},
		{"one that is down", all, "eth2", "ip link set eth2 up"},
		{"one without a cable", all, "eth3", "no carrier"},
		{"one without an address", all, "eth4", "no IPv4 address"},
		{"one without room", all, "eth5", "no room"},
	} {
		l, err := choose(c.list, c.want)
		if err != nil && !strings.Contains(err.Error(), c.got) || err == nil && l.Name != c.got {
			t.Errorf("%s: %s, %v; want %s", c.name, l.Name, err, c.got)
		}
	}
}
