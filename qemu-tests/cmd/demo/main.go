// Command demo boots a network of three machines from one medium in QEMU,
// looks whether it works, and reports what happened. It is the last part of
// ./build.sh demo.
package main

import (
	"os"

	"github.com/spf13/cobra"

	"viver.lan/qemu-tests/harness/show"
)

func main() {
	if show.Execute(command()) != nil {
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var bundles []string
	cmd := &cobra.Command{
		Use:   "demo [MEDIUM.iso]",
		Short: "Boot a network of three machines from one medium and report",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := show.Dir("demo")
			if err != nil {
				return err
			}
			medium := "images/out/viver.iso"
			if len(args) == 1 {
				medium = args[0]
			}
			return show.Demo(cmd.Context(), cmd.OutOrStdout(), medium, bundles, dir)
		},
	}
	cmd.Flags().StringArrayVar(&bundles, "rune", []string{"images/out/test/qemu-agent"}, "bundle to add to a copy of the medium, such as the agent that the checks ask; may be repeated")
	return cmd
}
