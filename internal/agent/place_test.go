package agent

import (
	"log/slog"
	"net/netip"
	"testing"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/control"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
)

func TestModeIsTheOperators(t *testing.T) {
	for _, c := range []struct {
		name, dhcp, address, pool string
		mode                      dhcp.Mode
		gives                     string
	}{
		{"alone", "full", "10.77.0.9/16", "10.77.4.0/24", dhcp.Full, "10.77.4.0/24"},
		{"beside another when it booted", "proxy", "192.168.1.9/24", "192.168.1.0/24", dhcp.Full, "192.168.1.0/24"},
		{"moved to another network", "proxy", "192.168.1.9/24", "10.77.0.0/16", dhcp.Full, "192.168.1.0/24"},
		{"a network of two", "full", "192.168.1.8/31", "10.77.0.0/16", dhcp.Proxy, ""},
		{"told to be silent", "external", "10.77.0.9/16", "10.77.0.0/16", dhcp.External, ""},
	} {
		p := place{boot: &control.Boot{DHCP: c.dhcp, Pool: netip.MustParsePrefix(c.pool)},
			network: bootnet.Network{Lease: bootnet.Lease{Address: netip.MustParsePrefix(c.address)}}}
		mode, pool := p.mode()
		if gives := pool.String(); mode != c.mode || pool.IsValid() && gives != c.gives {
			t.Errorf("%s: %s, %s, want %s, %s", c.name, mode, gives, c.mode, c.gives)
		}
	}
}

// A place that is taken from the status fits it, whatever the file says; what the status
// does not have stays.
func TestThePlaceIsTheStatus(t *testing.T) {
	card, bridge := bootnet.Card{Index: 2, Name: "eth0", MAC: ether.MAC{2, 5: 2}, Driver: "e1000"}, bootnet.Card{Index: 3, Name: "br0", MAC: ether.MAC{2, 5: 2}}
	server := netip.MustParseAddr("10.77.0.1")
	file := place{boot: &control.Boot{}, network: bootnet.Network{Card: bootnet.Card{Index: 2}, Upper: &bootnet.Card{Index: 9},
		Lease: bootnet.Lease{Address: netip.MustParsePrefix("10.1.0.9/16"), Viver: true}, Offers: []bootnet.Offer{{Server: server}}}}
	for name, now := range map[string]control.BootNetwork{
		"on the card":         {Card: card, Holder: card, Address: netip.MustParsePrefix("10.77.0.9/16"), Source: "static"},
		"on a bridge":         {Card: card, Holder: bridge, Address: netip.MustParsePrefix("10.77.0.9/16"), Router: server},
		"another name server": {Card: card, Holder: card, Address: netip.MustParsePrefix("10.1.0.9/16"), Source: "dhcp", Server: server, DNS: []netip.Addr{server}},
	} {
		p := file.at(&now)
		l := p.network.Lease
		if !p.same(&now) || p.network.Holder() != now.Holder || l.Source != now.Source || l.Server != now.Server || l.Viver {
			t.Errorf("%s: the place is %+v", name, p.network)
		}
		if len(p.network.Offers) != 1 {
			t.Errorf("%s: the offers of the boot are lost", name)
		}
		if file.same(&now) {
			t.Errorf("%s: the file says the same, so nothing is tested", name)
		}
	}
}

func TestForeignServersOfTheBootAreKnown(t *testing.T) {
	self, server := netip.MustParsePrefix("10.77.0.9/16"), netip.MustParseAddr("10.77.0.1")
	for name, c := range map[string]struct {
		network bootnet.Network
		want    bool
	}{
		"nobody":               {bootnet.Network{Lease: bootnet.Lease{Source: bootnet.SourceSelf, Address: self}}, false},
		"a boot host":          {bootnet.Network{Lease: bootnet.Lease{Source: bootnet.SourceDHCP, Address: self, Server: server, Viver: true}}, false},
		"who gave our address": {bootnet.Network{Lease: bootnet.Lease{Source: bootnet.SourceDHCP, Address: self, Server: server}}, true},
		"who offered one": {bootnet.Network{Lease: bootnet.Lease{Source: bootnet.SourceStatic, Address: self},
			Offers: []bootnet.Offer{{Server: server, Address: server.Next()}}}, true},
		"who names boot programs only": {bootnet.Network{Lease: bootnet.Lease{Source: bootnet.SourceSelf, Address: self},
			Offers: []bootnet.Offer{{Server: server}}}, false},
	} {
		f := newForeign(place{boot: &control.Boot{}, network: c.network}, slog.New(slog.DiscardHandler))
		if f.account.Present() != c.want {
			t.Errorf("%s: a server is there: %v, want %v", name, f.account.Present(), c.want)
		}
	}
}
