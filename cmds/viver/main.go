// Command viver is what an operator types: it builds images and media and asks
// running nodes how they are. It only wires flags to packages.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, environment{args: os.Args[1:], stdout: os.Stdout, stderr: os.Stderr, executable: os.Executable, configDir: configDir})
	stop()
	os.Exit(code)
}
