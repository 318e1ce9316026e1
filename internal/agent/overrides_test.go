package agent

import (
	"bytes"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"viver.lan/internal/boothost"
	"viver.lan/internal/control"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/ether"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/operator"
)

func TestOverridesAreObeyed(t *testing.T) {
	self, one, two := ether.MAC{0x52, 0x54, 5: 9}, ether.MAC{0x52, 0x54, 5: 1}, ether.MAC{0x52, 0x54, 5: 2}
	address := netip.MustParsePrefix("10.77.0.9/16")
	var said bytes.Buffer
	cfg := boothost.Config{Mode: dhcp.Full, Address: address, Pool: address.Masked()}
	o := newOverrides(&control.Boot{MAC: self, NodePrefix: "node"}, &cfg, slog.New(slog.NewTextHandler(&said, nil)))
	for _, step := range []struct {
		name           string
		entries        []operator.Override
		hostname, addr string // of machine one; "" for its defaults
		said           string
	}{
		{"nothing", nil, "node-525400000001", "", ""},
		{"a name", []operator.Override{{Key: operator.NameOf(one), Value: "lab-07"}}, "lab-07", "", ""},
		{"both", []operator.Override{{Key: operator.AddressOf(one), Value: "10.77.0.7"}, {Key: operator.NameOf(one), Value: "lab-07"}}, "lab-07", "10.77.0.7", ""},
		{"to us what we have", []operator.Override{{Key: operator.AddressOf(self), Value: "10.77.0.9"}}, "node-525400000001", "", ""},
		{"to another what we have", []operator.Override{{Key: operator.AddressOf(one), Value: "10.77.0.9"}}, "node-525400000001", "", "10.77.0.9 is reserved for " + one.String()},
		{"the same again", []operator.Override{{Key: operator.AddressOf(one), Value: "10.77.0.9"}}, "node-525400000001", "", ""},
		{"to two", []operator.Override{{Key: operator.AddressOf(one), Value: "10.77.0.7"}, {Key: operator.AddressOf(two), Value: "10.77.0.7"}}, "node-525400000001", "", "none of them"},
		{"nonsense", []operator.Override{{Key: operator.AddressOf(one), Value: "lab"}, {Key: operator.NameOf(one), Value: "a b"}}, "node-525400000001", "", "want IPv4"},
		{"of no machine", []operator.Override{{Key: "ip/lab", Value: "10.77.0.7"}}, "node-525400000001", "", ""},
		{"taken back", []operator.Override{{Key: operator.AddressOf(one)}, {Key: operator.NameOf(one)}}, "node-525400000001", "", ""},
	} {
		said.Reset()
		o.obey(step.entries)
		want := dhcp.Candidate(cfg.Pool, one, 0).String()
		if step.addr != "" {
			want = step.addr
		}
		if got, err := cfg.Table.Find(one); err != nil || got.String() != want {
			t.Errorf("%s: address %s, %v; want %s", step.name, got, err, want)
		}
		if got := cfg.Hostname(one); got != step.hostname {
			t.Errorf("%s: host name %q, want %q", step.name, got, step.hostname)
		}
		if got := said.String(); (got == "") != (step.said == "") || !strings.Contains(got, step.said) {
			t.Errorf("%s: it said %q, want %q", step.name, got, step.said)
		}
	}
}

// TestMembersAreHeard has members say where machines live, the dead among them,
// and strangers say nonsense.
func TestMembersAreHeard(t *testing.T) {
	one, two, three := ether.MAC{0x52, 0x54, 5: 1}, ether.MAC{0x52, 0x54, 5: 2}, ether.MAC{0x52, 0x54, 5: 3}
	address := netip.MustParsePrefix("10.77.0.9/16")
	cfg := boothost.Config{Mode: dhcp.Full, Address: address, Pool: address.Masked()}
	o := newOverrides(&control.Boot{MAC: ether.MAC{0x52, 0x54, 5: 9}}, &cfg, slog.New(slog.DiscardHandler))
	o.members([]control.Member{
		{MAC: one, Address: netip.MustParseAddr("10.77.1.1"), State: control.Alive},
		{MAC: two, Address: netip.MustParseAddr("10.77.1.2"), State: control.Dead},
		{MAC: three},
		{Address: netip.MustParseAddr("10.77.1.3")},
	})
	for mac, want := range map[ether.MAC]string{one: "10.77.1.1", two: "10.77.1.2", three: ""} {
		if want == "" {
			want = dhcp.Candidate(cfg.Pool, mac, 0).String()
		}
		if got, err := cfg.Table.Find(mac); err != nil || got.String() != want {
			t.Errorf("%s: address %s, %v; want %s", mac, got, err, want)
		}
	}
}

func TestOverridesBesideAnotherServer(t *testing.T) {
	cfg := boothost.Config{Mode: dhcp.Proxy, Address: netip.MustParsePrefix("10.77.0.9/16")}
	o := newOverrides(&control.Boot{MAC: ether.MAC{0x52, 0x54, 5: 9}}, &cfg, slog.New(slog.DiscardHandler))
	o.obey([]operator.Override{{Key: operator.AddressOf(ether.MAC{0x52, 0x54, 5: 1}), Value: "10.77.0.7"}})
	o.members([]control.Member{{MAC: ether.MAC{0x52, 0x54, 5: 1}, Address: netip.MustParseAddr("10.77.1.1")}})
	if cfg.Table != nil {
		t.Error("addresses are kept where another server gives them")
	}
}

// Machines that boot are told which live layer is in use, also by a node that lacks it.
func TestLiveOverride(t *testing.T) {
	live := operator.Override{Network: "lab", Key: livelayer.Key, Value: "x", Sequence: 3}
	none := live
	none.Value = ""
	for _, test := range []struct {
		name  string
		last  *lastStatus
		shown bool
	}{
		{"no word yet", nil, false},
		{"no daemon", &lastStatus{err: io.EOF}, false},
		{"nothing was added", &lastStatus{status: &control.Status{}}, false},
		{"it was taken back", &lastStatus{status: &control.Status{Overrides: []operator.Override{none}}}, false},
		{"its layer is to come", &lastStatus{status: &control.Status{Overrides: []operator.Override{live}, Live: &control.Live{Version: 3}}}, true},
		{"its layer is here", &lastStatus{status: &control.Status{Overrides: []operator.Override{live}, Live: &control.Live{Version: 3, Here: true}}}, true},
	} {
		a := &agent{}
		a.latest.Store(test.last)
		if got := a.liveOverride(); (got != nil) != test.shown {
			t.Errorf("%s: %s", test.name, got)
		}
	}
}
