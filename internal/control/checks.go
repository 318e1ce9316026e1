package control

import (
	"fmt"
	"strings"

	"viver.lan/internal/event"
)

// CheckState is how a check went.
type CheckState string

// The states of a check.
const (
	CheckOK      CheckState = "ok"
	CheckOff     CheckState = "off" // the settings say so
	CheckWarning CheckState = "warning"
	CheckFailed  CheckState = "failed"
)

// Check is one thing that is right or wrong with a node.
type Check struct {
	Name  string     `json:"name"`
	State CheckState `json:"state"`
	Text  string     `json:"text"` // for people
}

// Checks says what is right and wrong with the node of this status.
func (s *Status) Checks() []Check {
	var checks []Check
	if s.BootNetwork != nil {
		checks = append(checks, s.BootNetwork.check(), s.checkFirewall(), s.BootNetwork.checkNames())
	}
	checks = append(checks, s.checkPieces())
	if w := s.Written; w != nil && w.Short() {
		checks = append(checks, Check{"written files", CheckWarning,
			fmt.Sprintf("little room is left: %d MB, and %d files", w.Free/1e6, w.FilesFree)})
	}
	if s.StoreError != "" {
		checks = append(checks, Check{"piece store", CheckWarning, s.StoreError})
	}
	return checks
}

func (n *BootNetwork) check() Check {
	c := Check{Name: "boot link", State: CheckOK, Text: fmt.Sprintf("%s on %s", n.Lease(), n.Card)}
	if n.Holder.Index != n.Card.Index {
		c.Text += fmt.Sprintf("; the address is on %s, which that is a part of", n.Holder)
	}
	if !n.Plugged {
		c.State, c.Text = CheckFailed, c.Text+"; no carrier: is the cable plugged in, is the switch on?"
	}
	return c
}

func (s *Status) checkFirewall() Check {
	c := Check{Name: "firewall", State: CheckOK, Text: "nothing drops packets here"}
	switch f := s.Firewall; {
	case f == nil:
		c.State, c.Text = CheckOff, "firewall.open = false: a firewall of the distribution may keep other machines out"
	case len(f.Problems) > 0:
		c.State, c.Text = CheckFailed, "VIVER's ports may be closed: "+strings.Join(f.Problems, "; ")
	case len(f.Open) > 0:
		c.Text = fmt.Sprintf("VIVER's ports are kept open to %s by rules of its own in %s", s.BootNetwork.Address.Masked(), strings.Join(f.Open, ", "))
	}
	return c
}

func (n *BootNetwork) checkNames() Check {
	if len(n.DNS) == 0 {
		return Check{"name servers", CheckWarning, "the boot network names none"}
	}
	var servers []string
	for _, s := range n.DNS {
		servers = append(servers, s.String())
	}
	return Check{"name servers", CheckOK, strings.Join(servers, ", ")}
}

func (s *Status) checkPieces() Check {
	missing := event.OutOfReach(s.OutOfReach, s.Transfer.Pieces, s.OriginAnswers)
	switch {
	case missing != "":
		return Check{"pieces", CheckFailed, missing}
	case len(s.Waiting) > 0:
		w := s.Waiting[0]
		return Check{"pieces", CheckWarning, fmt.Sprintf("a read has waited for piece %d for %.0f s: %s", w.Piece, w.Seconds, w)}
	}
	return Check{"pieces", CheckOK, fmt.Sprintf("%d of %d here", s.Transfer.Have, s.Transfer.Pieces)}
}
