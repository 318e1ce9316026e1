// Command guestexec runs a test's commands in a guest.
//
// It opens the virtio-serial port execproto.PortName and carries out what the
// host asks for, as described there. It is for tests only and trusts the host
// with everything. The invariant: it holds the port for as long as it lives,
// whoever comes and goes on the other side.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "qemu-agent:", err)
		os.Exit(1)
	}
}

// portTimeout is how long the port may take to appear: the distribution's
// udev may still be loading its driver.
const portTimeout = 60 * time.Second

func run(ctx context.Context) error {
	if os.Getenv("PATH") == "" { // for the look-up of commands
		if err := os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/bbin"); err != nil {
			return err
		}
	}
	p, err := openPort(ctx, portTimeout)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.Close() }) // wakes the reader
	defer stop()
	a := &agent{out: p}
	for ctx.Err() == nil {
		if err := p.awaitHost(ctx); err != nil {
			return err
		}
		if err := a.session(ctx, p); err != nil && !errors.Is(err, os.ErrClosed) {
			fmt.Fprintln(os.Stderr, "qemu-agent:", err)
		}
	}
	return nil
}
