// Vfield is the storage side of a node: the block daemon that is the machine's
// root disk, and the supervisor that keeps it running.
//
//	vfield supervise   started by uinit: keeps @vfield and @viverd running
//	vfield node        the block daemon of a booted node
//	vfield --listen    a volume on any machine, for NBD clients
//
// The first two outlive the handover to the distribution's init, to the last unmount.
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
	"viver.lan/internal/supervise"
)

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2 // the command line was wrong
)

const usage = `usage: vfield VERB
  supervise   keep the daemons of this node running (started by uinit)
  node        be this node's root disk (started by the supervisor)
       vfield --listen ADDRESS:PORT ...
              serve an image to NBD clients on any machine; vfield --help tells more`

func main() {
	fewProcessors()
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "vfield:", err)
		if errors.As(err, new(blockdaemon.UsageError)) {
			os.Exit(exitUsage)
		}
		os.Exit(exitFailed)
	}
}

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
	verb := strings.Join(args, " ")
	switch {
	case strings.HasPrefix(verb, "-"):
		return listen(ctx, args)
	case verb == "supervise":
		return supervise.Node(ctx)
	case verb == "node":
		return blockdaemon.RunNode(ctx, os.Stdin)
	case verb == "":
		return blockdaemon.UsageError(usage)
	}
	return blockdaemon.UsageError(fmt.Sprintf("no verb %q\n%s", verb, usage))
}

// listen serves the volume that the command line asks for.
func listen(ctx context.Context, args []string) error {
	o, err := parseListen(args, os.Stdout)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err == nil {
		err = serveVolume(ctx, o)
	}
	if errors.As(err, new(blockdaemon.UsageError)) {
		err = fmt.Errorf("%w (see vfield --help)", err)
	}
	return err
}

// serveVolume serves a volume until the process is told to end.
func serveVolume(ctx context.Context, o blockdaemon.Options) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // who is told twice ends at once
	return blockdaemon.RunStandalone(ctx, o)
}
