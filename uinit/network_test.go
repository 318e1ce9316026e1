package main

import (
	"net/netip"
	"testing"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/cmdline"
	"viver.lan/internal/config"
	"viver.lan/internal/control"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
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
	ours, foreign := bootnet.Offer{Viver: true}, bootnet.Offer{}
	for _, tc := range []struct {
		name    string
		network bootnet.Network
		setting string
		want    dhcp.Mode
	}{
		{"nobody was here", bootnet.Network{Lease: bootnet.Lease{Source: bootnet.SourceSelf}}, "auto", dhcp.Full},
		{"a boot host of ours was here", bootnet.Network{Lease: bootnet.Lease{Source: bootnet.SourceDHCP, Viver: true}, Offers: []bootnet.Offer{ours}}, "auto", dhcp.Full},
		{"a node of ours", bootnet.Network{Lease: bootnet.Lease{Source: bootnet.SourceDHCP, Viver: true}}, "auto", dhcp.Full},
		{"a stranger was here", bootnet.Network{Lease: bootnet.Lease{Source: bootnet.SourceDHCP}, Offers: []bootnet.Offer{foreign}}, "auto", dhcp.Proxy},
		{"a stranger beside ours", bootnet.Network{Lease: bootnet.Lease{Source: bootnet.SourceDHCP, Viver: true}, Offers: []bootnet.Offer{ours, foreign}}, "auto", dhcp.Proxy},
		{"a node with a stranger's lease", bootnet.Network{Lease: bootnet.Lease{Source: bootnet.SourceDHCP}}, "auto", dhcp.Proxy},
		{"the operator wants silence", bootnet.Network{Lease: bootnet.Lease{Source: bootnet.SourceSelf}}, "external", dhcp.External},
	} {
		if got := dhcpMode(tc.network, tc.setting); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

func TestServedPool(t *testing.T) {
	for _, tc := range []struct{ name, address, setting, want string }{
		{"the usual", "10.77.3.9/16", "10.77.0.0/16", "10.77.0.0/16"},
		{"a part of it", "10.77.3.9/16", "10.77.128.0/17", "10.77.128.0/17"},
		{"the usual range was in use", "172.29.3.9/16", "10.77.0.0/16", "172.29.0.0/16"},
		{"a boot host with other settings was first", "192.168.40.7/22", "10.77.0.0/16", "192.168.40.0/22"},
		{"the setting is wider than the network", "10.77.3.9/24", "10.77.0.0/16", "10.77.3.0/24"},
	} {
		lease := bootnet.Lease{Address: netip.MustParsePrefix(tc.address)}
		got := servedPool(lease, netip.MustParsePrefix(tc.setting))
		if got.String() != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
		if err := dhcp.ValidatePool(got, lease.Address); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// Only a range that somebody set is a range to insist on.
func TestNetworkConfigPool(t *testing.T) {
	n := newNode()
	n.config = config.New()
	if cfg := n.networkConfig(); cfg.Pool.IsValid() {
		t.Errorf("the default is passed on as set: %s", cfg.Pool)
	}
	n.config.AddTOML(config.Medium, []byte("[network]\npool = \"10.77.0.0/16\"\n"))
	if cfg := n.networkConfig(); cfg.Pool != netip.MustParsePrefix("10.77.0.0/16") {
		t.Errorf("the medium's range is passed on as %s", cfg.Pool)
	}
}

// What the operator says of the network reaches it, from the medium and from the
// kernel command line.
func TestNetworkConfigAsTheOperatorSays(t *testing.T) {
	n := newNode()
	n.config = config.New()
	n.config.AddTOML(config.Medium, []byte("[network]\ninterface = \"eth1\"\nrouter = \"10.77.0.1\"\ndns = [\"10.77.0.2\"]\n"))
	n.cmdline = cmdline.Parse("ip=eth2:dhcp:1400 nameserver=9.9.9.9 nameserver=x nameserver=1.1.1.1 BOOTIF=01-52-54-00-12-34-56")
	cfg := n.networkConfig()
	if cfg.Interface != "eth1" || cfg.Router.String() != "10.77.0.1" || len(cfg.DNS) != 1 {
		t.Errorf("of the settings: %+v", cfg)
	}
	if cfg.IP.Device != "eth2" || cfg.IP.MTU != 1400 || len(cfg.IP.DNS) != 2 || cfg.BootIF == (ether.MAC{}) {
		t.Errorf("of the command line: %+v", cfg)
	}
}

func TestHostname(t *testing.T) {
	boot := control.Boot{MAC: ether.MAC{0x52, 0x54, 0, 0xaa, 0xbb, 1}, NodePrefix: "lab"}
	for _, tc := range []struct {
		name  string
		lease bootnet.Lease
		told  string
		want  string
	}{
		{"our boot host's word", bootnet.Lease{Viver: true, Hostname: "lab-07"}, "", "lab-07"},
		{"it has none", bootnet.Lease{Viver: true}, "", "lab-525400aabb01"},
		{"it says no host's name", bootnet.Lease{Viver: true, Hostname: "lab-07.example"}, "", "lab-525400aabb01"},
		{"another server's word", bootnet.Lease{Hostname: "dhcp-client"}, "", "lab-525400aabb01"},
		{"ip= on the kernel command line", bootnet.Lease{Viver: true, Hostname: "lab-07"}, "node9", "node9"},
		{"ip= with a domain", bootnet.Lease{}, "node9.example", "lab-525400aabb01"},
	} {
		if got := hostnameOf(tc.lease, tc.told, boot.NodeName(boot.MAC)); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}
