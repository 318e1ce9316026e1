package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"viver.lan/internal/event"
	"viver.lan/internal/hardware"
	"viver.lan/internal/klog"
	"viver.lan/internal/machine"
)

// stages is the boot, in order. README's table is this list.
func (n *node) stages() []stage {
	return []stage{
		{"pseudofs", "/proc /sys /dev /run, console, kernel log, the kernel command line", stop, 10 * time.Second, n.pseudofs},
		{"hardware", "modalias -> modules, wait for devices, describe the machine", degrade, 60 * time.Second, n.hardware},
		{"medium", "are we the machine with the boot medium?", degrade, 60 * time.Second, n.medium},
		{"network", "the right NIC, its address by DHCP or, on the first node of an empty network, our own", retry, 60 * time.Second, n.network},
		{"drivers", "the modules for disks, which firmware need not load from a network", degrade, 120 * time.Second, n.drivers},
		{"disks", "saved-data and cache disks by marker name, looked for read-only", degrade, 60 * time.Second, n.disks},
		{"settings", "fix the settings for this boot; print each with its source", degrade, 20 * time.Second, n.freezeSettings},
		{"vfield", "start the block daemon, join the swarm", retry, 60 * time.Second, n.vfield},
		{"attach", "the NBD device appears, its first and last block are read", retry, 120 * time.Second, n.attach},
		{"root", "squashfs below, memory or saved data above: the overlay root", stop, 60 * time.Second, n.assembleRoot},
		{"runes", "role bundles laid over the root: hostname, network, X11, services", degrade, 5 * time.Minute, n.applyRunes},
		{"handover", "move mounts, free the initramfs, become the distribution's init", stop, 60 * time.Second, n.handover},
	}
}

// run is PID 1, or the kernel's call for a module (overlay/initramfs/sbin/modprobe).
func run(ctx context.Context, args []string) int {
	if len(args) > 1 && args[1] == "modprobe" {
		if err := hardware.Modprobe(ctx, machine.Host{}, args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, "modprobe:", err)
			return 1
		}
		return 0
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "uinit is the first program of a VIVER machine and runs as process 1 only")
		return 2
	}
	n := newNode()
	r := &runner{log: n.log, events: n.events, pause: 5 * time.Second, took: n.took}
	// The last stage never returns when it succeeds, so every way past it is a
	// failure that needs a person.
	err := r.run(ctx, n.stages())
	if err == nil {
		err = errors.New("the boot list ended without a handover")
	}
	n.rescue(err)
	return 1
}

// newNode returns the state of a boot that has not begun. Log and events are
// usable before the kernel log and the host's port exist: both are buffered.
func newNode() *node {
	n := &node{took: make(map[string]float64), early: &buffer{}, kernelLog: &buffer{}, background: newBackground()}
	n.modules = hardware.NewLoader(n.host, new(hardware.Tree), hardware.Options{}) // until the hardware stage
	n.log = klog.New(n.kernelLog, "viver")
	n.events = event.NewLog("uinit", klog.Uptime, n.early)
	return n
}

// buffer stores what is written until its destination exists.
type buffer struct {
	buffered [][]byte
	to       interface{ Write([]byte) (int, error) }
}

func (l *buffer) Write(p []byte) (int, error) {
	if l.to == nil {
		l.buffered = append(l.buffered, append([]byte(nil), p...))
		return len(p), nil
	}
	return l.to.Write(p)
}

// connect writes what was stored to the destination, write by write.
func (l *buffer) connect(to interface{ Write([]byte) (int, error) }) error {
	var errs []error
	for _, p := range l.buffered {
		_, err := to.Write(p)
		errs = append(errs, err)
	}
	l.buffered, l.to = nil, to
	return errors.Join(errs...)
}
