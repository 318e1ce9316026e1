package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"viver.lan/internal/bootmedium"
	"viver.lan/internal/bytesize"
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
	var o bootmedium.WriteOptions
	cmd := &cobra.Command{
		Use:   "write MEDIUM.iso {DEVICE | FILE}",
		Short: "Write a medium to a USB stick and read it back",
		Long: `Write a medium to a USB stick and read it back. Everything on the stick is lost.
A device in use is refused: mounted, swapped to, or part of something else. A device
that is no removable stick, such as a USB disk, is shown with its model, size and
partitions, and written to with --yes only.

--data makes a file system named VIVERDATA behind the medium, on the same stick: what is
written to the machine that boots from it is still there after a restart. It takes so much
at the end of the stick, or all the rest. A stick that has one keeps it, with or
without --data, when another medium is written to it, unless --erase-data says otherwise.`,
		Example: `  viver medium write lab.iso /dev/sdX
  viver medium write lab.iso /dev/sdX --data 8G
  viver medium write lab.iso /dev/sdX --data rest`,
		Args: args(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, given []string) error {
			bar := newProgress(env.stderr)
			o.Progress = bar.show
			o.Note = func(s string) { bar.end(); fmt.Fprintf(env.stderr, "%s: %s\n", given[1], s) }
			target, err := bootmedium.Write(cmd.Context(), given[0], given[1], o)
			bar.end()
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(env.stdout, "%s: written and verified; it can be removed\n", target)
			return err
		},
	}
	flags := cmd.Flags()
	flags.BoolVar(&o.Force, "yes", false, "write to a device that is no removable stick")
	flags.Func("data", "`size` of a file system for saved data, such as 8G, or rest for all that is left", func(text string) error {
		var size bytesize.Size
		if text == "rest" {
			o.Data = bootmedium.RestOfStick
			return nil
		}
		err := size.Set(text)
		o.Data = int64(size)
		return err
	})
	flags.BoolVar(&o.EraseData, "erase-data", false, "do not keep the saved data that is on the stick")
	return cmd
}
