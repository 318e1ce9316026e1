// Viverd is the agent of a node: package agent with its log and its signals. On nodes
// whose rank says so it is the boot host.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"viver.lan/internal/agent"
	"viver.lan/internal/contain"
	"viver.lan/internal/control"
	"viver.lan/internal/event"
	"viver.lan/internal/klog"
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

func run(ctx context.Context) error {
	var panics contain.Counter
	events := event.NewLog("viverd", klog.Uptime)
	if port, err := event.OpenPort("/sys", "/dev", event.PortName("viverd")); err == nil {
		defer port.Close()
		events.AddSink(port)
	}
	if err := control.AwaitStart(os.Stdin); err != nil {
		return err
	}
	return agent.Run(ctx, agent.Config{Log: panics.Watch(klog.New(os.Stderr, "viverd")), Events: events, Panics: panics.Total})
}
