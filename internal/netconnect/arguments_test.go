package netconnect

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/ether"
	"viver.lan/internal/hostname"
)

func TestParseIP(t *testing.T) {
	addr, prefix := netip.MustParseAddr, netip.MustParsePrefix
	for value, want := range map[string]IPArgument{
		"":     {},
		"dhcp": {}, "on": {}, "any": {}, "both": {},
		"off": {Off: true}, "none": {Off: true},
		":::::eth1:dhcp":    {Device: "eth1"},
		"::::node7::dhcp":   {Hostname: "node7"},
		"10.0.0.5":          {Address: prefix("10.0.0.5/8")}, // by class
		"172.20.0.5":        {Address: prefix("172.20.0.5/16")},
		"192.168.1.5::::::": {Address: prefix("192.168.1.5/24")},
		"10.0.0.5::10.0.0.1:255.255.255.0:node5:eth0:none": {
			Address: prefix("10.0.0.5/24"), Router: addr("10.0.0.1"), Hostname: "node5", Device: "eth0"},
		"10.0.0.5:10.0.0.2:10.0.0.1:24:node5.lab:eth0:off:9.9.9.9:1.1.1.1:10.0.0.3": {
			Address: prefix("10.0.0.5/24"), Server: addr("10.0.0.2"), Router: addr("10.0.0.1"), Hostname: "node5.lab",
			Device: "eth0", DNS: []netip.Addr{addr("9.9.9.9"), addr("1.1.1.1")}},
		// dracut's
		"eth1:dhcp": {Device: "eth1"}, "eth1:single-dhcp:9000": {Device: "eth1", MTU: 9000}, "eth1.5:on": {Device: "eth1.5"},
		"10.0.0.5::10.0.0.1:24:node5:eth0:none:1400": {
			Address: prefix("10.0.0.5/24"), Router: addr("10.0.0.1"), Hostname: "node5", Device: "eth0", MTU: 1400},
		"::10.0.0.1::node7:eth0:dhcp:9.9.9.9": {Router: addr("10.0.0.1"), Hostname: "node7", Device: "eth0", DNS: []netip.Addr{addr("9.9.9.9")}},
		"10.0.0.5:0.0.0.0::255.255.0.0":       {Address: prefix("10.0.0.5/16")},
	} {
		got, err := ParseIP(value)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("ParseIP(%q) = %+v, %v; want %+v", value, got, err, want)
		}
	}
	for _, value := range []string{
		"dcp", "10.0.0", "10.0.0.5:x", "10.0.0.5:::255.0.255.0", "10.0.0.5:::33", "10.0.0.5:::0",
		":::255.255.255.0", "10.0.0.5::::a b", "10.0.0.5::::$(reboot)", "10.0.0.5:::::../eth0", "10.0.0.5::::::maybe",
		"[fe80::1]::::eth0", "224.0.0.1:::24", "127.0.0.1", "255.255.255.255:::24", "10.0.0.5::::::::::", "240.0.0.1",
		"eth1:dhcp6", "eth1:auto6", "eth1:dhcp:68", "eth1:dhcp:1500:02:00:00:00:00:01", "10.0.0.5::::::none:99999", "eth1:maybe",
	} {
		if got, err := ParseIP(value); err == nil {
			t.Errorf("ParseIP(%q) = %+v, want an error", value, got)
		}
	}
}

// What ip= says beside the address wins over what a server says.
func TestIPOverLease(t *testing.T) {
	addr := netip.MustParseAddr
	given := bootnet.Lease{Source: bootnet.SourceDHCP, Address: netip.MustParsePrefix("10.0.0.5/24"), Router: addr("10.0.0.1"), DNS: []netip.Addr{addr("10.0.0.1")}, BootHost: addr("10.0.0.2"), MTU: 9000}
	if got := (IPArgument{}).override(given); !reflect.DeepEqual(got, given) {
		t.Errorf("nothing said: %+v", got)
	}
	want := given
	want.Router, want.DNS, want.BootHost, want.MTU = addr("10.0.0.9"), []netip.Addr{addr("9.9.9.9")}, addr("10.0.0.3"), 1400
	a := IPArgument{Router: want.Router, DNS: want.DNS, Server: want.BootHost, MTU: want.MTU}
	if got := a.override(given); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func FuzzParseIP(f *testing.F) {
	f.Add("10.0.0.5:10.0.0.2:10.0.0.1:24:node5.lab:eth0:off:9.9.9.9:1.1.1.1:10.0.0.3")
	f.Add("dhcp")
	f.Fuzz(func(t *testing.T, value string) {
		a, err := ParseIP(value)
		if err != nil {
			return
		}
		if a.static() && (!a.Address.Addr().Is4() || a.Address.Bits() < 1 || a.Off) {
			t.Errorf("ParseIP(%q) = %+v", value, a)
		}
		if a.Hostname != "" && hostname.CheckDomain(a.Hostname) != nil {
			t.Errorf("ParseIP(%q) lets the host name %q through", value, a.Hostname)
		}
	})
}

func TestCardFilter(t *testing.T) {
	links := []bootnet.Card{{Index: 2, Name: "eth0", MAC: ether.MAC{1}}, {Index: 3, Name: "eth1", MAC: ether.MAC{2}}}
	for _, c := range []struct {
		filter cardFilter
		want   int
	}{{cardFilter{}, 2}, {cardFilter{MAC: ether.MAC{2}}, 1}, {cardFilter{Device: "eth0"}, 1}, {cardFilter{MAC: ether.MAC{2}, Device: "eth0"}, 0}, {cardFilter{MAC: ether.MAC{9}}, 0}} {
		if got := c.filter.apply(links); len(got) != c.want {
			t.Errorf("%+v fits %v", c.filter, got)
		}
	}
}

func TestParseBootIF(t *testing.T) {
	want := ether.MAC{0x52, 0x54, 0, 0x12, 0x34, 0x56}
	for _, s := range []string{
		"01-52-54-00-12-34-56", "52:54:00:12:34:56", "01:52:54:00:12:34:56",
		"52-54-00-12-34-56", "525400123456", " 01-52-54-00-12-34-56\n", "01-52-54-00-12-34-56",
	} {
		got, err := ParseBootIF(s)
		if err != nil || got != want {
			t.Errorf("ParseBootIF(%q) = %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{
		"", "eth0", "20-52-54-00-12-34-56", "52:54:00:12:34",
		"01-52-54-00-12-34-56-78", "zz:54:00:12:34:56",
	} {
		if got, err := ParseBootIF(s); err == nil {
			t.Errorf("ParseBootIF(%q) = %v, want an error", s, got)
		}
	}
}

func FuzzParseBootIF(f *testing.F) {
	f.Add("01-52-54-00-12-34-56")
	f.Add("52:54:00:12:34:56")
	f.Fuzz(func(t *testing.T, s string) {
		m, err := ParseBootIF(s)
		if err != nil {
			return
		}
		if back, err := ParseBootIF("01-" + strings.ReplaceAll(m.String(), ":", "-")); err != nil || back != m {
			t.Errorf("%q gives %v, which gives %v, %v", s, m, back, err)
		}
	})
}
