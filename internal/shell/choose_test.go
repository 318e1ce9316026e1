package shell

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/control"
	"viver.lan/internal/ether"
	"viver.lan/internal/identity"
	"viver.lan/internal/roles"
	"viver.lan/internal/sshkey"
)

// hostKey is one of a machine.
var hostKey = sshkey.Key{1, 2, 3}.String()

// machine is a member that is there, 10.0.0.N.
func machine(n byte, name string, edit ...func(*control.Member)) control.Member {
	m := control.Member{ID: identity.Public{n}.ID(), Hostname: name, MAC: ether.MAC{0x52, 0x54, 5: n}, Address: netip.AddrFrom4([4]byte{10, 0, 0, n}),
		HTTPPort: control.StandByPort, State: control.Alive, HostKey: hostKey}
	for _, e := range edit {
		e(&m)
	}
	return m
}

func in(state control.MemberState) func(*control.Member) {
	return func(m *control.Member) { m.State = state }
}

func labels(members []control.Member) (list []string) {
	for _, m := range members {
		list = append(list, Label(m))
	}
	return list
}

func TestChoose(t *testing.T) {
	disputed := func(m *control.Member) { m.NameState = control.Disputed }
	network := []control.Member{
		machine(9, "lab-09", func(m *control.Member) { m.Name = "Printer" }),
		machine(1, "lab-01"),
		machine(2, "lab-02", in(control.Dead)),
		machine(3, "lab-03", in(control.Left)),
		machine(4, "reader", func(m *control.Member) { m.HTTPPort = 0 }),
		machine(5, "lab-05", in(control.Dead), func(m *control.Member) { m.ID = identity.Public{55}.ID() }),
		machine(5, "lab-05"), // is back
		machine(6, "lab-01", disputed),
		machine(7, "twins", disputed), machine(8, "twins", disputed),
		machine(10, "lab"), machine(11, "lab-0910"),
	}
	web, disk := roles.Name{Rune: "web", Role: "page"}, roles.Name{Rune: "nfs", Role: "server"}
	for i, held := range map[int][]roles.Name{0: {disk, web}, 1: {web}, 2: {disk, web}, 7: {web}} {
		network[i].Roles = held // lab-09, lab-01, lab-02 that is dead, a disputed lab-01
	}
	for _, test := range []struct {
		choice      Choice
		run, absent []string
		err         string
	}{
		{Choice{All: true}, []string{"lab", "lab-01", "lab-05", "lab-09", "lab-0910"}, []string{"lab-01", "lab-02", "lab-03", "twins", "twins"}, ""},
		{Choice{Names: []string{"lab-09", "10.0.0.1", "printer"}}, []string{"lab-01", "lab-09"}, nil, ""},
		{Choice{Names: []string{"LAB-01"}}, []string{"lab-01"}, nil, ""}, // the one that owns its name
		{Choice{Names: []string{"lab"}}, []string{"lab"}, nil, ""},       // a whole name before the beginnings of others
		{Choice{Names: []string{"pri", "lab-05"}}, []string{"lab-05", "lab-09"}, nil, ""},
		{Choice{Names: []string{"52-54-00-00-00-05"}}, []string{"lab-05"}, nil, ""},
		{Choice{Names: []string{"52:54:00:00:00:09"}}, []string{"lab-09"}, nil, ""},
		{Choice{Names: []string{network[1].ID.String()[:6]}}, []string{"lab-01"}, nil, ""},
		{Choice{Names: []string{"nfs/server"}}, []string{"lab-09"}, nil, ""},
		{Choice{Names: []string{"web/page", "lab-09", "lab-05"}}, []string{"lab-01", "lab-05", "lab-09"}, []string{"lab-01"}, ""},
		{Choice{Names: []string{"web/balancer"}}, nil, nil, "no machine on the network holds the role"},
		{Choice{Names: []string{"web/"}}, nil, nil, "is no role"},
		{Choice{Names: []string{"lab-02"}}, nil, []string{"lab-02"}, ""},
		{Choice{Names: []string{"10.0.0.6"}}, nil, []string{"lab-01"}, ""},
		{Choice{Names: []string{"lab-0"}}, nil, nil, "lab-01 (52:54:00:00:00:01), lab-05 (52:54:00:00:00:05)"},
		{Choice{Names: []string{"twins"}}, nil, nil, "say more of its name"},
		{Choice{Names: []string{"lab-01", "lab-77"}}, nil, nil, `no machine "lab-77"`},
		{Choice{Names: []string{"lab-03"}}, nil, []string{"lab-03"}, ""}, // switched off
		{Choice{Names: []string{"reader"}}, nil, nil, "no machine"},
		{Choice{Names: []string{""}}, nil, nil, "no machine"},
	} {
		run, absent, err := Choose(network, test.choice)
		var away []string
		for _, a := range absent {
			away = append(away, Label(a.Member))
		}
		if !slices.Equal(labels(run), test.run) || !slices.Equal(away, test.absent) || (err == nil) != (test.err == "") ||
			err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%+v: %q, absent %q, %v; want %q, absent %q, %q", test.choice, labels(run), away, err, test.run, test.absent, test.err)
		}
	}
	if _, _, err := Choose(nil, Choice{All: true}); err == nil {
		t.Error("a network of nobody is no error")
	}
}

// ssh gets the keys of those only who are there and own their names.
func TestKnownHosts(t *testing.T) {
	network := []control.Member{
		machine(1, "lab-01"), machine(2, "lab-02", in(control.Dead)),
		machine(3, "lab-03", func(m *control.Member) { m.NameState = control.Unconfirmed }),
		machine(4, "lab-04", func(m *control.Member) { m.HostKey = "" }),
		machine(5, "lab-05", func(m *control.Member) { m.HostKey = "* ssh-rsa AAAA\n@cert-authority *" }),
	}
	if got, want := string(KnownHosts(network)), "lab-01,10.0.0.1 "+hostKey+"\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
