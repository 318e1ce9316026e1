// Vfield-sim runs the decisions of networks of up to ten thousand nodes on one
// machine and prints how close to the physical limit they come.
//
//	vfield-sim                  the published table
//	vfield-sim -n 1000 ...      one network
//	vfield-sim -bed FILE        held against what the bench measured
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "vfield-sim:", err)
		os.Exit(1)
	}
}
