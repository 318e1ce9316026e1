package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// errUnhealthy is the error when a check failed.
var errUnhealthy = errors.New("this node is not healthy")

func newDoctor(env environment) *cobra.Command {
	var v view
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check this node; the exit code is 1 when a check failed",
		Example: `  viver doctor
  viver doctor -o json
  viver doctor files
  viver doctor hardware`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := askStatus(cmd.Context(), v.socket)
			if err != nil {
				return err
			}
			checks := checksOf(s)
			if err := v.print(env.stdout, checks, func(w io.Writer) error { return writeChecks(w, checks) }); err != nil {
				return err
			}
			return verdict(checks)
		},
	}
	v.register(cmd)
	cmd.AddCommand(newDoctorFiles(env), newDoctorHardware(env))
	return cmd
}

func writeChecks(w io.Writer, checks []check) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, c := range checks {
		fmt.Fprintf(t, "%s\t%s\t%s\n", c.State, c.Name, c.Text)
	}
	return t.Flush()
}

// verdict is an error when a check failed; a warning is none.
func verdict(checks []check) error {
	for _, c := range checks {
		if c.State == checkFailed {
			return fmt.Errorf("%w: %s", errUnhealthy, c.Name)
		}
	}
	return nil
}
