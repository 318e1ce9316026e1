// Vrune is @vrune: what the runes want of a running node. It is package runner with its
// log, its signals and the runes of this machine; its supervisor starts it again whenever
// it ends, and what it has started goes on meanwhile.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"viver.lan/internal/booted"
	"viver.lan/internal/control"
	"viver.lan/internal/klog"
	"viver.lan/internal/livelayer"
	"viver.lan/internal/livestore"
	"viver.lan/internal/runes"
	"viver.lan/internal/runner"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx)
	stop()
	if err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "vrune:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	// The supervisor is spared when memory is short. What runes start must not be, nor
	// this process, which can be started again.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("0"), 0); err != nil {
		return err
	}
	return runner.Run(ctx, runner.Config{
		Log:     klog.New(os.Stderr, "vrune"),
		Network: control.NewClient(control.Socket),
		System:  booted.System{Process: "/proc/1"},
		Dir:     control.RunDir,
		Bundles: bundles,
		Layer:   func(d livelayer.Digest) (livelayer.Layer, error) { return livestore.Read(control.LiveDir, d) },
	})
}

// bundles are the runes of the initramfs and, in place of those of the same name, the
// ones of the medium.
func bundles() ([]runes.Bundle, error) {
	list, errs := runes.LoadNode(control.BuiltinRunes, control.RunesFile)
	return list, errors.Join(errs...)
}
