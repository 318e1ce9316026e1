package blockdaemon

import (
	"fmt"
	"strings"

	"viver.lan/internal/control"
	"viver.lan/internal/dhcp"
	"viver.lan/internal/firewall"
)

// openPorts are the ports that other machines need of this one.
func (n *node) openPorts() firewall.Config {
	const tftp = 69
	return firewall.Config{
		Network: n.network.Lease.Address.Masked(),
		TCP:     []uint16{control.SwarmPort, control.GossipPort, n.boot.ServePort()},
		UDP:     []uint16{control.SwarmPort, control.GossipPort, dhcp.ServerPort, dhcp.PXEPort, tftp},
		Log:     n.log,
	}
}

// checks are what this machine knows of its surroundings, for people.
func (n *node) checks() []control.Check {
	return []control.Check{n.checkLink(), n.checkFirewall(), n.checkNames()}
}

func (n *node) checkLink() control.Check {
	c := control.Check{Name: "boot link", State: control.CheckOK}
	link, holder := n.network.Link, n.guard.Holder()
	c.Text = fmt.Sprintf("%s on %s", n.guard.Lease(), link)
	if holder.Index != link.Index {
		c.Text += fmt.Sprintf("; the address is on %s (%s), which that is a part of", holder.Name, holder.MAC)
	}
	if !n.guard.Plugged() {
		c.State, c.Text = control.CheckFailed, c.Text+"; no carrier: is the cable plugged in, is the switch on?"
	}
	return c
}

func (n *node) checkFirewall() control.Check {
	c := control.Check{Name: "firewall", State: control.CheckOK}
	if n.firewall == nil {
		c.State, c.Text = control.CheckOff, "firewall.open = false: a firewall of the distribution may keep other machines out"
		return c
	}
	r := n.firewall.Report()
	switch {
	case len(r.Problems) > 0:
		c.State, c.Text = control.CheckFailed, "VIVER's ports may be closed: "+strings.Join(r.Problems, "; ")
	case len(r.Open) > 0:
		c.Text = "VIVER's ports are kept open to " + n.guard.Lease().Address.Masked().String() + " by rules of its own in " + strings.Join(r.Open, ", ")
	default:
		c.Text = "nothing drops packets here"
	}
	return c
}

func (n *node) checkNames() control.Check {
	c := control.Check{Name: "name servers", State: control.CheckOK}
	var servers []string
	for _, s := range n.guard.Lease().DNS {
		servers = append(servers, s.String())
	}
	if c.Text = strings.Join(servers, ", "); c.Text == "" {
		c.State, c.Text = control.CheckWarning, "the boot network names none"
	}
	return c
}

// pieceChecks are what a volume knows of its pieces.
func pieceChecks(s *control.Status) []control.Check {
	pieces := control.Check{Name: "pieces", State: control.CheckOK, Text: fmt.Sprintf("%d of %d here", s.Transfer.Have, s.Transfer.Pieces)}
	switch {
	case s.Missing != "":
		pieces.State, pieces.Text = control.CheckFailed, s.Missing
	case len(s.Waiting) > 0:
		w := s.Waiting[0]
		pieces.State, pieces.Text = control.CheckWarning, fmt.Sprintf("piece %d is waited for since %.0f s: %s", w.Piece, w.Seconds, w.Reason)
	}
	checks := []control.Check{pieces}
	if w := s.Written; w != nil && w.Short() {
		checks = append(checks, control.Check{Name: "written files", State: control.CheckWarning,
			Text: fmt.Sprintf("little room is left: %d MB, and %d files", w.Free/1e6, w.FilesFree)})
	}
	if s.Note != "" {
		checks = append(checks, control.Check{Name: "piece store", State: control.CheckWarning, Text: s.Note})
	}
	return checks
}
