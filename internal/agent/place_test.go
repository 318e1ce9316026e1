package agent

import (
	"log/slog"
	"net/netip"
	"testing"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/control"
	"viver.lan/internal/dhcp"
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
