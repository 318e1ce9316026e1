//go:build !node

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"viver.lan/internal/imagebuild"
	"viver.lan/internal/imagetree"
)

func newImageExplain(env environment) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "explain IMAGE [PATH...]",
		Short: "Show what an image has otherwise than its source, and why",
		Long: `Show each file that an image has otherwise than its source, by reason: what was left
out, emptied, changed and added, with its size in bytes, and the secrets that are in the
image. With a PATH of the source, show what concerns that file, what lies in it and the
directories that it lies in.

The list is ` + imagebuild.ReportFile + ` in the image directory. It is no part of the image: no
medium has it and no machine gets it.`,
		Example: `  viver image explain images/office
  viver image explain images/office /etc/ssh /etc/fstab`,
		Args: args(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, given []string) error {
			if format != "text" && format != "json" {
				return usageError{fmt.Errorf("-o %s: want text or json", format)}
			}
			report, err := imagebuild.ReadReport(given[0])
			if err != nil {
				return err
			}
			if paths := given[1:]; len(paths) > 0 {
				report = report.About(paths...)
			}
			return printReport(env, format, report)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func printReport(env environment, format string, report *imagetree.Report) error {
	if format == "json" {
		return report.WriteJSON(env.stdout)
	}
	if len(report.Differences) == 0 {
		_, err := fmt.Fprintln(env.stdout, "no difference: what the source has there is in the image")
		return err
	}
	return report.Write(env.stdout)
}
