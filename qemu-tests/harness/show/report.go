package show

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"viver.lan/internal/event"
)

// Check is something that was tried on a running network.
type Check struct {
	What string
	Err  error // nil: it is so
}

// Report tells a person what happened.
func Report(w io.Writer, machines []Machine, checks []Check) error {
	var b strings.Builder
	table(&b, func(t *tabwriter.Writer) {
		fmt.Fprintln(t, "MACHINE\tFIRMWARE\tBOOTED BY\tHOSTNAME\tADDRESS\tPOWER-ON TO LOGIN")
		for _, m := range machines {
			login := m.Status()
			if !m.Login.IsZero() {
				login = fmt.Sprintf("%.0f s", m.Login.Sub(m.PowerOn).Seconds())
			}
			firmware := string(m.Firmware)
			if m.Node.Firmware != "" {
				firmware = m.Node.Firmware // what the machine itself found
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", m.Name, firmware, or(m.Node.BootedBy, m.Boots),
				or(m.Node.Hostname, "-"), or(m.Node.Address, "-"), login)
		}
	})
	table(&b, func(t *tabwriter.Writer) {
		fmt.Fprintf(t, "SECONDS PER STAGE\t%s\n", strings.Join(names(machines), "\t"))
		for _, name := range stageNames(machines) {
			fmt.Fprint(t, name)
			for i := range machines {
				fmt.Fprintf(t, "\t%s", machines[i].seconds(name))
			}
			fmt.Fprintln(t)
		}
	})
	table(&b, func(t *tabwriter.Writer) {
		fmt.Fprintf(t, "BYTES OF THE IMAGE\t%s\n", strings.Join(names(machines), "\t"))
		row := func(title string, of func(event.Transfer) uint64) {
			fmt.Fprint(t, title)
			for _, m := range machines {
				fmt.Fprintf(t, "\t%s", megabytes(of(m.Transfer)))
			}
			fmt.Fprintln(t)
		}
		row("from the medium", func(tr event.Transfer) uint64 { return tr.FromMedium })
		row("from the first node", func(tr event.Transfer) uint64 { return tr.FromOrigin })
		row("from other nodes", func(tr event.Transfer) uint64 { return tr.FromPeers })
		row("given to others", func(tr event.Transfer) uint64 { return tr.Sent })
		fmt.Fprint(t, "pieces held")
		for _, m := range machines {
			fmt.Fprintf(t, "\t%d of %d", m.Transfer.Have, m.Transfer.Pieces)
		}
		fmt.Fprintln(t)
	})
	for _, c := range checks {
		if c.Err == nil {
			fmt.Fprintf(&b, "  ok      %s\n", c.What)
		} else {
			fmt.Fprintf(&b, "  FAILED  %s: %v\n", c.What, c.Err)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Missing has a clause for each thing that is not as it should be: machines
// that nobody can log in to, and checks that failed.
func Missing(machines []Machine, checks []Check) []string {
	var all []string
	for _, m := range machines {
		if m.Login.IsZero() {
			all = append(all, m.Name+": "+m.Status())
		}
	}
	for _, c := range checks {
		if c.Err != nil {
			all = append(all, "failed: "+c.What)
		}
	}
	return all
}

func table(b *strings.Builder, fill func(*tabwriter.Writer)) {
	t := tabwriter.NewWriter(b, 0, 8, 3, ' ', 0)
	fill(t)
	_ = t.Flush() // into memory
	b.WriteByte('\n')
}

// Names of the times before the first and after the last stage of uinit.
const (
	beforeKernel = "power-on to kernel"
	kernelItself = "kernel"
	afterStages  = "handover to login"
)

// stageNames are the rows of the table, in the order of the first machine
// that went through them.
func stageNames(machines []Machine) []string {
	rows := []string{beforeKernel, kernelItself}
	seen := map[string]bool{"handover": true}
	for _, m := range machines {
		for _, s := range m.Stages {
			if !seen[s.Name] {
				seen[s.Name] = true
				rows = append(rows, s.Name)
			}
		}
	}
	return append(rows, afterStages)
}

// seconds is how long a row of the table took on this machine.
func (m *Machine) seconds(row string) string {
	find := func(name string) *Stage {
		for i := range m.Stages {
			if m.Stages[i].Name == name {
				return &m.Stages[i]
			}
		}
		return nil
	}
	switch row {
	case beforeKernel:
		if !m.Kernel.IsZero() {
			return fmt.Sprintf("%.1f", m.Kernel.Sub(m.PowerOn).Seconds())
		}
	case kernelItself:
		if len(m.Stages) > 0 {
			return fmt.Sprintf("%.1f", m.Stages[0].Began.Sub(m.Kernel).Seconds())
		}
	case afterStages:
		if s := find("handover"); s != nil && !m.Login.IsZero() {
			return fmt.Sprintf("%.1f", m.Login.Sub(s.Began).Seconds())
		}
	default:
		if s := find(row); s != nil {
			switch s.State {
			case event.Done:
				return fmt.Sprintf("%.1f", s.Seconds)
			case event.Degraded:
				return fmt.Sprintf("%.1f (without)", s.Seconds)
			}
			return string(s.State)
		}
	}
	return "-"
}

func names(machines []Machine) []string {
	var all []string
	for _, m := range machines {
		all = append(all, m.Name)
	}
	return all
}

func megabytes(n uint64) string {
	if n == 0 {
		return "0"
	}
	return fmt.Sprintf("%.1f MB", float64(n)/1e6)
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
