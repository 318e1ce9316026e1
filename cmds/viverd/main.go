// Viverd is the node's agent. On the first node it is the boot host: DHCP,
// TFTP and HTTP for machines that boot from the network.
//
// It may crash and be restarted at any time: the root disk does not depend on
// it, and every byte of the image it serves comes from the block daemon.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "viverd:", err)
		os.Exit(1)
	}
}
