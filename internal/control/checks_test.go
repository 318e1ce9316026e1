package control

import (
	"net/netip"
	"strings"
	"testing"

	"viver.lan/internal/bootnet"
	"viver.lan/internal/ether"
	"viver.lan/internal/event"
)

func TestChecks(t *testing.T) {
	card := bootnet.Card{Index: 2, Name: "eth0", MAC: ether.MAC{2, 5: 1}, Driver: "e1000"}
	link := BootNetwork{Card: card, Holder: card, Plugged: true, Source: "dhcp", Address: netip.MustParsePrefix("10.77.0.5/16"),
		Server: netip.MustParseAddr("10.77.0.1"), DNS: []netip.Addr{netip.MustParseAddr("10.77.0.1")}}
	with := func(change func(*BootNetwork)) *BootNetwork {
		l := link
		change(&l)
		return &l
	}
	for _, c := range []struct {
		status Status
		name   string // of the check that is looked at
		state  CheckState
		text   string
	}{
		{Status{Transfer: event.Transfer{Have: 3, Pieces: 9}}, "pieces", CheckOK, "3 of 9 here"},
		{Status{Transfer: event.Transfer{Pieces: 9}, OutOfReach: 3}, "pieces", CheckFailed, "3 of 9 pieces are on no machine in reach, and the first node does not answer"},
		{Status{OutOfReach: 3, OriginAnswers: true}, "pieces", CheckFailed, "in reach; all others can be read"},
		{Status{Waiting: []event.Waiting{{Piece: 7, Seconds: 14, Reason: event.NoPeer}}}, "pieces", CheckWarning, "waited for piece 7 for 14 s: no peer"},
		{Status{StoreError: "the cache disk failed"}, "piece store", CheckWarning, "the cache disk failed"},
		{Status{Written: &Written{Size: 100e6, Free: 2e6}}, "written files", CheckWarning, "2 MB"},
		{Status{BootNetwork: &link}, "boot link", CheckOK, "10.77.0.5/16 from the DHCP server 10.77.0.1 on eth0 (e1000, 02:00:00:00:00:01)"},
		{Status{BootNetwork: with(func(l *BootNetwork) { l.Plugged = false })}, "boot link", CheckFailed, "no carrier"},
		{Status{BootNetwork: with(func(l *BootNetwork) { l.Holder = bootnet.Card{Index: 3, Name: "br0", MAC: card.MAC} })}, "boot link", CheckOK, "the address is on br0 (02:00:00:00:00:01)"},
		{Status{BootNetwork: with(func(l *BootNetwork) { l.Viver = true })}, "boot link", CheckOK, "boot host 10.77.0.1"},
		{Status{BootNetwork: with(func(l *BootNetwork) { l.Source, l.Server = "static", netip.Addr{} })}, "boot link", CheckOK, "command line"},
		{Status{BootNetwork: with(func(l *BootNetwork) { l.Source, l.Server = "self", netip.Addr{} })}, "boot link", CheckOK, "by ourselves"},
		{Status{BootNetwork: &link}, "name servers", CheckOK, "10.77.0.1"},
		{Status{BootNetwork: with(func(l *BootNetwork) { l.DNS = nil })}, "name servers", CheckWarning, "none"},
		{Status{BootNetwork: &link}, "firewall", CheckOff, "firewall.open"},
		{Status{BootNetwork: &link, Firewall: &Firewall{}}, "firewall", CheckOK, "nothing drops"},
		{Status{BootNetwork: &link, Firewall: &Firewall{Open: []string{"ip filter INPUT"}}}, "firewall", CheckOK, "to 10.77.0.0/16 by rules of its own in ip filter INPUT"},
		{Status{BootNetwork: &link, Firewall: &Firewall{Problems: []string{"EPERM"}}}, "firewall", CheckFailed, "may be closed: EPERM"},
	} {
		found := false
		for _, got := range c.status.Checks() {
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
	if checks := (&Status{}).Checks(); len(checks) != 1 {
		t.Errorf("a volume that is no machine's has %v", checks)
	}
}
