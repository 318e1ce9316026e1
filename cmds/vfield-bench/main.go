// Vfield-bench measures V-FIELD, NBD, HTTP and BitTorrent clients on a bed of
// network namespaces; docs/bench/README.md explains how. Needs no root.
//
//	vfield-bench [-quick] [-only ROW,...] [-vfield PROGRAM] ...
//	vfield-bench -publish
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if inside := new(exec.ExitError); errors.As(err, &inside) {
		os.Exit(1) // it has said why
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "vfield-bench:", err)
		os.Exit(1)
	}
}
