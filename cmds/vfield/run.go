package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"viver.lan/internal/blockdaemon"
)

const usage = `usage: vfield VERB
  supervise   keep the daemons of this node running (started by uinit)
  node        be this node's root disk (started by the supervisor)
       vfield --listen ADDRESS:PORT ...
              serve an image to NBD clients on any machine; vfield --help tells more`

// fewProcessors keeps the Go runtime to one processor, to two where there are
// many. One moves some 300 MB/s; a second one mostly burns a fifth more CPU in
// waking and watching the first, which the machine's own work can use.
func fewProcessors() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(min(max(runtime.NumCPU()/4, 1), 2))
	}
}

// run carries out one verb.
func run(ctx context.Context, args []string) error {
	fewProcessors()
	if len(args) > 0 && strings.HasPrefix(args[0], "-") {
		return listen(ctx, args)
	}
	if len(args) != 1 {
		return blockdaemon.UsageError{Err: errors.New(usage)}
	}
	switch args[0] {
	case "supervise":
		return blockdaemon.Supervise(ctx)
	case "node":
		return blockdaemon.Run(ctx)
	}
	return blockdaemon.UsageError{Err: fmt.Errorf("no verb %q\n%s", args[0], usage)}
}

// listen serves a volume until the process is told to end.
func listen(ctx context.Context, args []string) error {
	o, err := parseListen(args, os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // who is told twice ends at once
	return blockdaemon.Listen(ctx, o)
}
