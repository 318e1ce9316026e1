// Command demo boots a network of three machines from one medium in QEMU,
// looks whether it works, and reports what happened. It is the last part of
// ./build.sh demo. With --cluster they are four, and work together.
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
	var cluster bool
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
			if cluster {
				return show.DemoCluster(cmd.Context(), cmd.OutOrStdout(), medium, bundles, dir)
			}
			return show.Demo(cmd.Context(), cmd.OutOrStdout(), medium, bundles, dir)
		},
	}
	cmd.Flags().StringArrayVar(&bundles, "rune", []string{"images/out/test/qemu-agent"}, "bundle to add to a copy of the medium, such as the agent that the checks ask; may be repeated")
	cmd.Flags().BoolVar(&cluster, "cluster", false, "the medium is that of ./build.sh demo cluster: boot 1, 2 and 4 machines, which work together")
	return cmd
}
