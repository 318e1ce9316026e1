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

func newMediumBuild(env environment) *cobra.Command {
	var c bootmedium.Config
	var public string
	cmd := &cobra.Command{
		Use:   "build IMAGE -o MEDIUM.iso",
		Short: "Make a bootable ISO for CD and USB, BIOS and UEFI, from an image",
		Long: `Make a bootable ISO for CD and USB, BIOS and UEFI, from an image. The ISO has a
small FAT volume named VIVERCONF with viver/viver.toml, which any PC can edit
once the ISO is on a stick.`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			var err error
			if c.Owner, err = ownerPublic(env, public); err != nil {
				return err
			}
			bar := newProgress(env.stderr)
			c.Image, c.Progress = given[0], bar.show
			marker, err := bootmedium.Build(cmd.Context(), c)
			bar.end()
			if err != nil {
				return hintPublic(err, public)
			}
			_, err = fmt.Fprintf(env.stdout, "%s: medium %s with image %s\n", c.Output, marker.ID, marker.Image)
			return err
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&c.Output, "output", "o", "", "ISO file to make")
	flags.StringVar(&public, "public", "", publicHelp)
	flags.StringVar(&c.Settings, "settings", "", "viver.toml for the settings volume (default: all settings, commented out)")
	flags.StringArrayVar(&c.Runes, "rune", nil, "bundle directory to put on the settings volume; may be repeated")
	flags.StringArrayVar(&c.Arguments, "append", nil, "kernel argument of the first node; may be repeated")
	_ = cmd.MarkFlagRequired("output") // the flag exists
	_ = cmd.MarkFlagFilename("output", "iso")
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
