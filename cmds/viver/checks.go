package main

import (
	"fmt"
	"strings"

	"viver.lan/internal/control"
	"viver.lan/internal/event"
)

// checkState is how a check went.
type checkState string

// The states of a check.
const (
	checkOK      checkState = "ok"
	checkOff     checkState = "off" // the settings say so
	checkWarning checkState = "warning"
	checkFailed  checkState = "failed"
)

// check is one thing that is right or wrong with a node.
type check struct {
	Name  string     `json:"name"`
	State checkState `json:"state"`
	Text  string     `json:"text"` // for people
}

// checksOf says what is right and wrong with the node of this status.
func checksOf(s *control.Status) []check {
	var checks []check
	if s.BootNetwork != nil {
		checks = append(checks, checkBootLink(s.BootNetwork), checkFirewall(s), checkNameServers(s.BootNetwork))
	}
	checks = append(checks, checkPieces(s))
	for _, sentence := range s.Lacking {
		checks = append(checks, check{"hardware", checkWarning, sentence})
	}
	for _, r := range s.Runes {
		checks = append(checks, check{"rune " + r.Rune, checkWarning, r.Outcome + ": " + r.Reason})
	}
	if w := s.Written; w != nil && w.Short() {
		checks = append(checks, check{"written files", checkWarning,
			fmt.Sprintf("little room is left: %d MB, and %d files", w.Free/1e6, w.FilesFree)})
	}
	if s.StoreError != "" {
		checks = append(checks, check{"piece store", checkWarning, s.StoreError})
	}
	return checks
}

func checkBootLink(n *control.BootNetwork) check {
	c := check{Name: "boot link", State: checkOK, Text: fmt.Sprintf("%s on %s", n.Lease(), n.Card)}
	if n.Holder.Index != n.Card.Index {
		c.Text += fmt.Sprintf("; the address is on %s, which that is a part of", n.Holder)
	}
	if !n.Plugged {
		c.State, c.Text = checkFailed, c.Text+"; no carrier: is the cable plugged in, is the switch on?"
	}
	return c
}

func checkFirewall(s *control.Status) check {
	c := check{Name: "firewall", State: checkOK, Text: "nothing drops packets here"}
	switch f := s.Firewall; {
	case f == nil:
		c.State, c.Text = checkOff, "firewall.open = false: a firewall of the distribution may keep other machines out"
	case len(f.Problems) > 0:
		c.State, c.Text = checkFailed, "VIVER's ports may be closed: "+strings.Join(f.Problems, "; ")
	case len(f.Open) > 0:
		c.Text = fmt.Sprintf("VIVER's ports are kept open to %s by rules of its own in %s", s.BootNetwork.Address.Masked(), strings.Join(f.Open, ", "))
	}
	return c
}

func checkNameServers(n *control.BootNetwork) check {
	if len(n.DNS) == 0 {
		return check{"name servers", checkWarning, "the boot network names none"}
	}
	var servers []string
	for _, s := range n.DNS {
		servers = append(servers, s.String())
	}
	return check{"name servers", checkOK, strings.Join(servers, ", ")}
}

func checkPieces(s *control.Status) check {
	missing := event.OutOfReach(s.OutOfReach, s.Transfer.Pieces, s.OriginAnswers)
	switch {
	case missing != "":
		return check{"pieces", checkFailed, missing}
	case len(s.Waiting) > 0:
		w := s.Waiting[0]
		return check{"pieces", checkWarning, fmt.Sprintf("a read has waited for piece %d for %.0f s: %s", w.Piece, w.Seconds, w)}
	}
	return check{"pieces", checkOK, fmt.Sprintf("%d of %d here", s.Transfer.Have, s.Transfer.Pieces)}
}
