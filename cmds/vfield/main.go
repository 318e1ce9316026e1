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
	"fmt"
	"os"

	"viver.lan/internal/blockdaemon"
)

// Exit codes.
const (
	exitFailed = 1
	exitUsage  = 2 // the command line was wrong
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "vfield:", err)
		var usage blockdaemon.UsageError
		if errors.As(err, &usage) {
			os.Exit(exitUsage)
		}
		os.Exit(exitFailed)
	}
}
