package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"viver.lan/internal/bootmedium"
)

func newMedium(env environment) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "medium",
		Short: "Build boot media and write them to sticks",
	}
	cmd.AddCommand(newMediumBuild(env), newMediumWrite(env))
	return cmd
}

func newMediumWrite(env environment) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "write MEDIUM.iso {DEVICE | FILE}",
		Short: "Write a medium to a USB stick and read it back",
		Long: `Write a medium to a USB stick and read it back. Everything on the stick is lost.
A device in use is refused: mounted, swapped to, or part of something else. A device
that is no removable stick, such as a USB disk, is shown with its model, size and
partitions, and written to with --yes only.`,
		Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			bar := newProgress(env.stderr)
			target, err := bootmedium.Write(cmd.Context(), given[0], given[1], yes, bar.show)
			bar.end()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "%s: written and verified; it can be removed\n", target)
			return err
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "write to a device that is no removable stick")
	return cmd
}
