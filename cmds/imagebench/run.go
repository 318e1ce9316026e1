package main

import (
	"os"

	"github.com/spf13/cobra"

	"viver.lan/internal/imagebench"
	"viver.lan/internal/imagebuild"
)

func command() *cobra.Command {
	o := imagebench.Options{Level: imagebuild.DefaultLevel, Print: os.Stdout}
	var publish string
	cmd := &cobra.Command{
		Use:           "imagebench",
		Short:         "Measure viver image build beside mksquashfs alone, on the same tree",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if publish != "" {
				return imagebench.Publish(o.Out, publish)
			}
			if o.Self, err = os.Executable(); err != nil {
				return err
			}
			return imagebench.Run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Tree, "tree", "images/out/trees/debian", "tar archive of an installed Linux")
	f.StringVar(&o.Viver, "viver", "images/out/bin/viver", "`program` to measure")
	f.StringVar(&o.Lib, "lib", "images/out/lib", "`directory` of its parts")
	f.StringVar(&o.Out, "out", "images/out/bench/image", "`directory` for results; images lie there while they are made")
	f.IntVar(&o.Runs, "runs", 0, "repeat each row so often and report the median (3)")
	f.StringVar(&publish, "publish", "", "measure nothing, copy the last results to this `directory`")
	cmd.AddCommand(&cobra.Command{
		Use: imagebench.RootVerb + " SOURCE OUT", Hidden: true, Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return imagebench.WriteRoot(cmd.Context(), args[0], args[1], o.Level)
		},
	})
	return cmd
}
