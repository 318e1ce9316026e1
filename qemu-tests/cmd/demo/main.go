// Command demo boots a network of three machines from one medium in QEMU,
// looks whether it works, and reports what happened. It is the last part of
// ./build.sh demo.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"viver.lan/qemu-tests/harness/show"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := command().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var bundles []string
	cmd := &cobra.Command{
		Use:           "demo [MEDIUM.iso]",
		Short:         "Boot a network of three machines from one medium and report",
		Args:          cobra.MaximumNArgs(1),
		SilenceUsage:  true,
		SilenceErrors: true,
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
