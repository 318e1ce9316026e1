package show

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"text/tabwriter"
)

// workChecks says what the work shows: it ended well, and everybody had a share.
func workChecks(done []Work) []Check {
	var checks []Check
	for _, w := range done {
		c := Check{What: w.title() + ": " + w.What, Err: w.Err}
		if w.Lost == "" && w.Err == nil {
			c.Err = w.shared()
		}
		checks = append(checks, c)
	}
	return checks
}

// title says who worked.
func (w Work) title() string {
	switch {
	case w.Lost != "":
		return w.Lost + " loses its power"
	case w.Machines == 1:
		return "1 machine"
	}
	return fmt.Sprintf("%d machines", w.Machines)
}

// shared fails when a machine had nothing to do.
func (w Work) shared() error {
	if len(w.On) == 0 {
		return errors.New("nothing was counted")
	}
	for i, count := range w.On {
		if count == 0 {
			return fmt.Errorf("none on %s", Names(len(w.On))[i])
		}
	}
	return nil
}

// writeWork prints a table of what was done where.
func writeWork(out io.Writer, machines []Machine, done []Work) error {
	var b strings.Builder
	again := 0
	table(&b, func(t *tabwriter.Writer) {
		fmt.Fprintf(t, "DONE TOGETHER\t\t%s\tSECONDS\n", strings.Join(names(machines), "\t"))
		title := ""
		for _, w := range done {
			if w.Err != nil {
				continue // it is among the checks
			}
			shown := ""
			if w.title() != title {
				title = w.title()
				shown = title
			}
			fmt.Fprintf(t, "%s\t%s", shown, w.What)
			for i := range machines {
				if i < len(w.On) {
					fmt.Fprintf(t, "\t%d", w.On[i])
				} else {
					fmt.Fprint(t, "\t-")
				}
			}
			fmt.Fprintf(t, "\t%.0f\n", w.Took.Seconds())
			again += w.Again
		}
	})
	if again > 0 {
		fmt.Fprintf(&b, "%d files were lost with a machine, and compiled again on %s.\n", again, machines[0].Name)
	}
	fmt.Fprintf(&b, "All machines share the %d processors of this computer: what grows with their number is who has a share, not the speed.\n", runtime.NumCPU())
	_, err := io.WriteString(out, b.String())
	return err
}
