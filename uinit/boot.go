package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"viver.lan/internal/event"
	"viver.lan/internal/hardware"
	"viver.lan/internal/klog"
	"viver.lan/internal/machine"
)

// stages is the boot. Each begins when those that it needs have ended; README's table
// is this list.
func (n *node) stages() []stage {
	type on = []string
	return []stage{
		{"pseudofs", nil, nil, "/proc /sys /dev /run, console, kernel log, the kernel command line", stop, 10 * time.Second, n.pseudofs},
		{"hardware", on{"pseudofs"}, nil, "modalias -> modules, wait for devices, describe the machine", degrade, 60 * time.Second, n.hardware},
		{"daemons", on{"hardware"}, nil, "block daemon, agent and their supervisor are started, and wait", retry, 20 * time.Second, n.startDaemons},
		{"modules", on{"hardware"}, nil, "modules for disks, and those that no device asks for: nbd, squashfs, overlay", degrade, 60 * time.Second, n.otherModules},
		{"medium", on{"hardware"}, nil, "are we the machine with the boot medium?", degrade, 60 * time.Second, n.medium},
		{"network", on{"medium"}, nil, "the right NIC, its address by DHCP or, on the first node of an empty network, our own", retry, 60 * time.Second, n.network},
		{"boothost", on{"network"}, on{"medium"}, "which machine serves this one; the settings of its network", retry, 60 * time.Second, n.boothost},
		{"settings", on{"boothost"}, nil, "fix the settings for this boot; print each with its source", degrade, 20 * time.Second, n.freezeSettings},
		{"image", on{"boothost"}, nil, "which image to run; its owner's signature", retry, 60 * time.Second, n.chooseImage},
		{"drivers", on{"modules", "settings", "image"}, nil, "more modules for disks and network cards, if one asks for them", degrade, 120 * time.Second, n.drivers},
		{"disks", on{"drivers"}, nil, "saved-data and cache disks by marker name, looked for read-only", degrade, 60 * time.Second, n.disks},
		{"bundles", on{"boothost"}, nil, "role bundles are fetched, read and checked", retry, 60 * time.Second, n.readBundles},
		{"vfield", on{"daemons", "network", "disks"}, nil, "the block daemon gets what it needs, and joins the swarm", retry, 60 * time.Second, n.vfield},
		{"attach", on{"vfield"}, nil, "the NBD device appears, its first and last block are read", retry, 120 * time.Second, n.attach},
		{"agent", on{"attach", "bundles"}, nil, "the agent begins: it boots others if its rank says so", degrade, 10 * time.Second, n.agent},
		{"root", on{"attach"}, nil, "squashfs below, memory or saved data above: the overlay root", stop, 60 * time.Second, n.assembleRoot},
		{"runes", on{"root", "bundles"}, nil, "role bundles laid over the root: hostname, network, X11, services", degrade, 5 * time.Minute, n.applyRunes},
		{"handover", on{"runes", "agent"}, nil, "move mounts, free the initramfs, become the distribution's init", stop, 60 * time.Second, n.handover},
	}
}

// mostGarbage is how much memory process 1 takes before it collects garbage, in bytes.
const mostGarbage = 32 << 20

// run is PID 1, or the kernel's call for a module (answerKernel).
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
	// It lives for seconds. A collection of the little that it leaves would stop its
	// threads, while others wait for them.
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(mostGarbage)
	n := newNode()
	r := &runner{log: n.log, events: n.events, pause: 5 * time.Second, grace: grace, first: n.first, took: n.took}
	// The last stage never returns when it succeeds, so every way past it is a
	// failure that needs a person.
	err := r.run(ctx, n.stages())
	if err == nil {
		err = errors.New("the boot list ended without a handover")
	}
	n.rescue(err)
	return 1
}

// first reports whether this is the machine with the medium. The stage medium finds out.
func (n *node) first() bool { return n.boot.First }

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
	mu       sync.Mutex
	buffered [][]byte
	to       io.Writer
}

// Write implements io.Writer.
func (l *buffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.to == nil {
		l.buffered = append(l.buffered, append([]byte(nil), p...))
		return len(p), nil
	}
	return l.to.Write(p)
}

// connect writes what was stored to the destination, write by write.
func (l *buffer) connect(to io.Writer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var errs []error
	for _, p := range l.buffered {
		_, err := to.Write(p)
		errs = append(errs, err)
	}
	l.buffered, l.to = nil, to
	return errors.Join(errs...)
}
