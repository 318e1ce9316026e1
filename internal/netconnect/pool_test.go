package netconnect

import (
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/dhcpclient"
	"viver.lan/internal/ether"
)

func TestPools(t *testing.T) {
	for i, p := range pools() {
		if err := dhcp.ValidatePool(p, p); err != nil || !p.Addr().IsPrivate() || p != p.Masked() {
			t.Errorf("%s: %v, private %v", p, err, p.Addr().IsPrivate())
		}
		for _, q := range pools()[:i] {
			if p.Overlaps(q) {
				t.Errorf("%s overlaps %s", p, q)
			}
		}
	}
}

func TestChoosePool(t *testing.T) {
	boot := bootnet.Card{Index: 2, Name: "eth0"}
	node := ether.MAC{0x52, 0x54, 0, 0, 0, 7}
	at := func(where string) usedPrefix {
		return usedPrefix{prefix: netip.MustParsePrefix(where), link: 3, evidence: "a server gives"}
	}
	of := func(link int, mac ether.MAC, ip netip.Addr) usedPrefix {
		return usedPrefix{prefix: singleIP(ip), link: link, mac: mac, evidence: "a machine has"}
	}
	for _, c := range []struct {
		name   string
		seen   []usedPrefix
		want   string
		passed int
	}{
		{"nothing seen", nil, "10.77.0.0/16", 0},
		{"something elsewhere", []usedPrefix{at("192.168.50.0/24"), at("10.78.0.0/16")}, "10.77.0.0/16", 0},
		{"a part of it", []usedPrefix{at("10.77.3.0/24")}, "172.29.0.0/16", 1},
		{"one address of it", []usedPrefix{at("10.77.255.1/32")}, "172.29.0.0/16", 1},
		{"a company's whole block", []usedPrefix{at("10.0.0.0/8")}, "172.29.0.0/16", 1},
		{"two blocks", []usedPrefix{at("10.0.0.0/8"), at("172.16.0.0/12")}, "192.168.0.0/16", 5},
		{"all blocks", []usedPrefix{at("10.0.0.0/8"), at("172.16.0.0/12"), at("192.168.7.7/32")}, "10.77.0.0/16", 6},
		{"a stranger on the boot link", []usedPrefix{of(2, node, netip.MustParseAddr("10.77.0.9"))}, "172.29.0.0/16", 1},
		{"a node on the boot link", []usedPrefix{of(2, node, dhcp.Candidate(defaultPool(), node, 0))}, "10.77.0.0/16", 0},
		{"one whose first address was taken", []usedPrefix{of(2, node, dhcp.Candidate(defaultPool(), node, 3))}, "10.77.0.0/16", 0},
		{"a node on another link", []usedPrefix{of(3, node, dhcp.Candidate(defaultPool(), node, 0))}, "172.29.0.0/16", 1},
	} {
		got, passed := firstFreePool(boot, c.seen)
		if got.String() != c.want || len(passed) != c.passed {
			t.Errorf("%s: %s, %d rejected, want %s and %d", c.name, got, len(passed), c.want, c.passed)
		}
	}
}

// What was set stays and is warned of, what was not gives way and says why.
func TestPoolForSaysWhy(t *testing.T) {
	seen := []usedPrefix{
		{prefix: netip.MustParsePrefix("10.77.3.0/24"), link: 3, evidence: "on eth1 the foreign DHCP server 10.77.3.1 gives addresses of"},
		{prefix: netip.MustParsePrefix("10.77.3.1/32"), link: 3, evidence: "on eth1 a DHCP server has"},
	}
	for _, c := range []struct {
		name, set, want string
		seen            []usedPrefix
		says            []string
	}{
		{"set, and free", "192.168.40.0/22", "192.168.40.0/22", seen, nil},
		{"set, and in use", "10.77.0.0/16", "10.77.0.0/16", seen, []string{"level=WARN", "pool=10.77.0.0/16", "10.77.3.0/24", "eth1", "more=1"}},
		{"not set", "", "172.29.0.0/16", seen, []string{"level=INFO", "10.77.3.0/24", "eth1"}},
		{"not set, nothing seen", "", "10.77.0.0/16", nil, nil},
	} {
		var log strings.Builder
		cfg := Config{Log: slog.New(slog.NewTextHandler(&log, nil))}
		if c.set != "" {
			cfg.Pool = netip.MustParsePrefix(c.set)
		}
		if got := choosePool(cfg, bootnet.Card{Index: 2, Name: "eth0"}, c.seen); got.String() != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if len(c.says) == 0 && log.Len() > 0 {
			t.Errorf("%s: says %s", c.name, &log)
		}
		for _, want := range c.says {
			if !strings.Contains(log.String(), want) {
				t.Errorf("%s: %q is not in %s", c.name, want, &log)
			}
		}
	}
}

func TestOfferSightings(t *testing.T) {
	server, net := netip.MustParseAddr("10.77.3.1"), netip.MustParsePrefix("10.77.3.0/24")
	seen := offeredPrefixes(bootnet.Card{Index: 3, Name: "eth1"}, []bootnet.Offer{
		{Server: server, Address: netip.MustParseAddr("10.77.3.50"), Network: net, Router: server},
		{Server: netip.MustParseAddr("10.9.0.1")}, // proxyDHCP
	})
	var got []string
	for _, s := range seen {
		got = append(got, s.prefix.String())
	}
	if want := "10.77.3.0/24 10.77.3.1/32 10.9.0.1/32"; strings.Join(got, " ") != want {
		t.Errorf("seen %s, want %s", got, want)
	}
}

func TestBestLink(t *testing.T) {
	a, b, c := bootnet.Card{Index: 1}, bootnet.Card{Index: 2}, bootnet.Card{Index: 3}
	offer := dhcpclient.Servers{Offers: []bootnet.Offer{{Address: netip.MustParseAddr("10.0.0.9")}}}
	proxy := dhcpclient.Servers{Offers: []bootnet.Offer{{Server: netip.MustParseAddr("10.0.0.1")}}}
	for _, tc := range []struct {
		name    string
		surveys []survey
		choice  []bootnet.Card
		want    int
		alive   bool
	}{
		{"no cable", []survey{{link: a}, {link: b}}, []bootnet.Card{a, b}, 1, false},
		{"first alive", []survey{{link: a}, {link: b, carrier: true}, {link: c, carrier: true}}, []bootnet.Card{a, b, c}, 2, true},
		{"a server wins", []survey{{link: a, carrier: true}, {link: b, carrier: true, servers: offer}}, []bootnet.Card{a, b}, 2, true},
		{"a proxy gives no address", []survey{{link: a, carrier: true}, {link: b, carrier: true, servers: proxy}}, []bootnet.Card{a, b}, 1, true},
		{"a server on a link that was not named", []survey{{link: a, carrier: true, servers: offer}, {link: b, carrier: true}}, []bootnet.Card{b}, 2, true},
		{"no cable on the one that was named", []survey{{link: a, carrier: true}, {link: b}}, []bootnet.Card{b}, 2, false},
	} {
		if got := bestLink(tc.surveys, tc.choice); got.link.Index != tc.want || got.carrier != tc.alive {
			t.Errorf("%s: %+v, want link %d", tc.name, got, tc.want)
		}
	}
}
