package main

import (
	"net/netip"
	"strings"
	"testing"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/control"
	"viver.lan/internal/ether"
	"viver.lan/internal/event"
)

func TestChecks(t *testing.T) {
	card := bootnet.Card{Index: 2, Name: "eth0", MAC: ether.MAC{2, 5: 1}, Driver: "e1000"}
	link := control.BootNetwork{Card: card, Holder: card, Plugged: true, Source: "dhcp", Address: netip.MustParsePrefix("10.77.0.5/16"),
		Server: netip.MustParseAddr("10.77.0.1"), DNS: []netip.Addr{netip.MustParseAddr("10.77.0.1")}}
	with := func(change func(*control.BootNetwork)) *control.BootNetwork {
		l := link
		change(&l)
		return &l
	}
	for _, c := range []struct {
		status control.Status
		name   string // of the check that is looked at
		state  checkState
		text   string
	}{
		{control.Status{Transfer: event.Transfer{Have: 3, Pieces: 9}}, "pieces", checkOK, "3 of 9 here"},
		{control.Status{Transfer: event.Transfer{Pieces: 9}, OutOfReach: 3}, "pieces", checkFailed, "3 of 9 pieces are on no machine in reach, and the first node does not answer"},
		{control.Status{OutOfReach: 3, OriginAnswers: true}, "pieces", checkFailed, "in reach; all others can be read"},
		{control.Status{Waiting: []event.Waiting{{Piece: 7, Seconds: 14, Reason: event.NoPeer}}}, "pieces", checkWarning, "waited for piece 7 for 14 s: no peer"},
		{control.Status{Lacking: []string{"network 10ec:8168: no driver runs it"}}, "hardware", checkWarning, "network 10ec:8168: no driver runs it"},
		{control.Status{StoreError: "the cache disk failed"}, "piece store", checkWarning, "the cache disk failed"},
		{control.Status{Runes: []control.RuneOutcome{{Rune: "school", Outcome: "broken", Reason: "rune.toml:3: order: 200"}}}, "rune school", checkWarning, "broken: rune.toml:3: order: 200"},
		{control.Status{Written: &control.Written{Size: 100e6, Free: 2e6}}, "written files", checkWarning, "2 MB"},
		{control.Status{BootNetwork: &link}, "boot link", checkOK, "10.77.0.5/16 from the DHCP server 10.77.0.1 on eth0 (e1000, 02:00:00:00:00:01)"},
		{control.Status{BootNetwork: with(func(l *control.BootNetwork) { l.Plugged = false })}, "boot link", checkFailed, "no carrier"},
		{control.Status{BootNetwork: with(func(l *control.BootNetwork) { l.Holder = bootnet.Card{Index: 3, Name: "br0", MAC: card.MAC} })}, "boot link", checkOK, "the address is on br0 (02:00:00:00:00:01)"},
		{control.Status{BootNetwork: with(func(l *control.BootNetwork) { l.Viver = true })}, "boot link", checkOK, "boot host 10.77.0.1"},
		{control.Status{BootNetwork: with(func(l *control.BootNetwork) { l.Source, l.Server = "static", netip.Addr{} })}, "boot link", checkOK, "command line"},
		{control.Status{BootNetwork: with(func(l *control.BootNetwork) { l.Source, l.Server = "self", netip.Addr{} })}, "boot link", checkOK, "by ourselves"},
		{control.Status{BootNetwork: &link}, "name servers", checkOK, "10.77.0.1"},
		{control.Status{BootNetwork: with(func(l *control.BootNetwork) { l.DNS = nil })}, "name servers", checkWarning, "none"},
		{control.Status{BootNetwork: &link}, "firewall", checkOff, "firewall.open"},
		{control.Status{BootNetwork: &link, Firewall: &control.Firewall{}}, "firewall", checkOK, "nothing drops"},
		{control.Status{BootNetwork: &link, Firewall: &control.Firewall{Open: []string{"ip filter INPUT"}}}, "firewall", checkOK, "to 10.77.0.0/16 by rules of its own in ip filter INPUT"},
		{control.Status{BootNetwork: &link, Firewall: &control.Firewall{Problems: []string{"EPERM"}}}, "firewall", checkFailed, "may be closed: EPERM"},
	} {
		found := false
		for _, got := range checksOf(&c.status) {
			if got.Name == c.name {
				found = true
				if got.State != c.state || !strings.Contains(got.Text, c.text) {
					t.Errorf("%s: %s %q, want %s %q", c.name, got.State, got.Text, c.state, c.text)
				}
			}
		}
		if !found {
			t.Errorf("%+v: no check of %s", c.status, c.name)
		}
	}
	if checks := checksOf(&control.Status{}); len(checks) != 1 {
		t.Errorf("a volume that is no machine's has %v", checks)
	}
}
