package main

import (
	"net/netip"
	"testing"

	"viver.lan/internal/control"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/netconf"
)

func TestParseHost(t *testing.T) {
	for text, want := range map[string]string{
		"10.77.0.1": "10.77.0.1:80", "10.77.0.1:6880": "10.77.0.1:6880",
		"": "", "lab": "", "10.77.0.1:": "", "10.77.0.1:0": "", "10.77.0.1:99999": "",
	} {
		got, err := parseHost(text)
		if want == "" && err == nil || want != "" && (err != nil || got != netip.MustParseAddrPort(want)) {
			t.Errorf("%q is %s, %v; want %q", text, got, err, want)
		}
	}
}

func TestDHCPMode(t *testing.T) {
	ours, foreign := netconf.Offer{Viver: true}, netconf.Offer{}
	for _, tc := range []struct {
		name    string
		network netconf.Network
		setting string
		want    dhcp.Mode
	}{
		{"nobody was here", netconf.Network{Lease: netconf.Lease{Source: netconf.SourceSelf}}, "auto", dhcp.Full},
		{"a boot host of ours was here", netconf.Network{Lease: netconf.Lease{Source: netconf.SourceDHCP, Viver: true}, Offers: []netconf.Offer{ours}}, "auto", dhcp.Full},
		{"a node of ours", netconf.Network{Lease: netconf.Lease{Source: netconf.SourceDHCP, Viver: true}}, "auto", dhcp.Full},
		{"a stranger was here", netconf.Network{Lease: netconf.Lease{Source: netconf.SourceDHCP}, Offers: []netconf.Offer{foreign}}, "auto", dhcp.Proxy},
		{"a stranger beside ours", netconf.Network{Lease: netconf.Lease{Source: netconf.SourceDHCP, Viver: true}, Offers: []netconf.Offer{ours, foreign}}, "auto", dhcp.Proxy},
		{"a node with a stranger's lease", netconf.Network{Lease: netconf.Lease{Source: netconf.SourceDHCP}}, "auto", dhcp.Proxy},
		{"the operator wants silence", netconf.Network{Lease: netconf.Lease{Source: netconf.SourceSelf}}, "external", dhcp.External},
	} {
		if got := dhcpMode(tc.network, tc.setting); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

func TestHostname(t *testing.T) {
	boot := control.Boot{MAC: "52:54:00:aa:bb:01", NodePrefix: "lab"}
	for _, tc := range []struct {
		name  string
		lease netconf.Lease
		want  string
	}{
		{"our boot host's word", netconf.Lease{Viver: true, Hostname: "lab-07"}, "lab-07"},
		{"it has none", netconf.Lease{Viver: true}, "lab-aabb01"},
		{"it says no host's name", netconf.Lease{Viver: true, Hostname: "lab-07.example"}, "lab-aabb01"},
		{"another server's word", netconf.Lease{Hostname: "dhcp-client"}, "lab-aabb01"},
	} {
		if got := hostname(&boot, tc.lease); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}
