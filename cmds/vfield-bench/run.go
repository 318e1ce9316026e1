package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"viver.lan/internal/bench"
	"viver.lan/internal/bench/workers"
	"viver.lan/internal/netbed"
)

// cleanUp is how long the measuring process may take to end its own.
const cleanUp = 30 * time.Second

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "worker" {
		return workers.Run(ctx, args[1:], os.Stdin, os.Stdout)
	}
	o := bench.Options{Print: os.Stdout, Terminal: term.IsTerminal(int(os.Stdout.Fd()))}
	var publish string
	f := flag.NewFlagSet("vfield-bench", flag.ContinueOnError)
	f.BoolVar(&o.Quick, "quick", false, "only V-FIELD with 1, 4 and 16 nodes and NBD with one")
	f.Func("only", "measure these `rows` of the plan: vfield:16, vfield:16:deaths, unthrottled, demand:vfield, ...", func(s string) error {
		o.Only = append(o.Only, strings.Split(s, ",")...)
		return nil
	})
	f.IntVar(&o.Runs, "runs", 0, "repeat each row so often and report the median")
	f.IntVar(&o.Megabytes, "mb", 0, "size of the file, in 10^6 bytes")
	f.IntVar(&o.Mbit, "mbit", 0, "rate of the links that are limited, in Mbit/s")
	f.StringVar(&o.VField, "vfield", "images/out/bin/vfield", "the `program` to measure")
	f.StringVar(&o.Out, "out", "images/out/bench", "`directory` for results and logs")
	f.StringVar(&publish, "publish", "", "measure nothing, copy the last results to this `directory`")
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return nil
	} else if err != nil {
		return err
	}
	switch {
	case f.NArg() > 0:
		return fmt.Errorf("%q is not a flag; see vfield-bench -help", f.Arg(0))
	case publish != "":
		return bench.Publish(o.Out, publish)
	case netbed.Inside():
		return bench.Run(ctx, o)
	}
	return enter(ctx, args)
}

// enter runs this program again where it may build networks.
func enter(ctx context.Context, args []string) error {
	inside, err := netbed.Self(ctx, args...)
	if err != nil {
		return err
	}
	inside.Stdin, inside.Stdout, inside.Stderr = nil, os.Stdout, os.Stderr
	inside.Cancel = func() error { return inside.Process.Signal(syscall.SIGTERM) }
	inside.WaitDelay = cleanUp
	runtime.LockOSThread() // it dies with the thread that started it
	defer runtime.UnlockOSThread()
	return inside.Run()
}
