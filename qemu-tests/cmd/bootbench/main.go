// Command bootbench measures boots of virtual machines, VIVER's and others',
// from power-on to login; docs/bench/README.md explains how. It is the last part
// of ./build.sh bench boot.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"viver.lan/qemu-tests/harness/bootbench"
	"viver.lan/qemu-tests/harness/outsider"
)

func main() {
	is, err := outsider.Inside()
	if !is {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
		err = command().ExecuteContext(ctx)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bootbench:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	o := bootbench.Options{Print: os.Stdout, Terminal: term.IsTerminal(int(os.Stdout.Fd()))}
	var publish string
	var check bool
	cmd := &cobra.Command{
		Use:           "bootbench",
		Short:         "Measure boots from power-on to login, VIVER's beside others",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case publish != "":
				return bootbench.Publish(o.Out, publish)
			case check:
				return bootbench.Check(o)
			}
			return bootbench.Run(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.Quick, "quick", false, "one run of the rows that say most")
	f.StringSliceVar(&o.Only, "only", nil, "measure these rows: viver, viver:1, room:tiny, ...")
	f.BoolVar(&o.Again, "again", false, "keep the rows of the last result that are not measured, such as when others were disturbed")
	f.IntVar(&o.Runs, "runs", 0, "repeat each row so often and report the median")
	f.StringVar(&o.Images, "images", "images/out", "directory of the images")
	f.StringVar(&o.Media, "media", "images/out/bench/media", "directory of their media, with the tests' agent")
	f.StringVar(&o.Baselines, "baselines", "images/out/bench/baselines", "what VIVER is compared with")
	f.StringVar(&o.Agent, "agent", "images/out/test/qemu-agent/files/usr/local/libexec/viver/qemu-agent", "the tests' agent that is in them")
	f.StringVar(&o.Out, "out", "images/out/bench/boot", "directory for results and logs")
	f.StringVar(&publish, "publish", "", "measure nothing, copy the last results to this directory")
	f.BoolVar(&check, "check", false, "measure nothing, say whether the rows exist")
	cmd.AddCommand(&cobra.Command{
		Use: bootbench.ServeVerb + " DIR", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return bootbench.Serve(cmd.Context(), args[0]) },
	})
	return cmd
}
