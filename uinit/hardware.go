package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"viver.lan/internal/blockdev"
	"viver.lan/internal/event"
	"viver.lan/internal/hardware"
)

// leastMemory is what Linux must see, in bytes, to unpack the initramfs whole.
// A machine of 256 MiB shows 205 of them and boots Debian; one of 224 shows 175
// and loses drivers on the way.
const leastMemory = 192 << 20

// otherModules loads what a machine needs, but not for its network: what no device
// asks for, and the drivers of disks, which may need a while to answer.
func (n *node) otherModules(ctx context.Context) (string, error) {
	var forDisks hardware.Report
	var beside sync.WaitGroup
	beside.Go(func() { forDisks = n.modules.Finish(ctx) })
	report, err := n.modules.Load(ctx, "nbd", "squashfs", "overlay")
	beside.Wait()
	forDisks.Loaded = append(report.Loaded, forDisks.Loaded...)
	return forDisks.String(), err
}

// forDisks reports whether a module, by its file, is a driver for disks.
func forDisks(file string) bool {
	class, ok := strings.CutPrefix(file, "kernel/drivers/")
	return ok && slices.ContainsFunc([]string{"ata/", "block/", "cdrom/", "message/", "mmc/", "nvme/", "scsi/", "usb/storage/"},
		func(prefix string) bool { return strings.HasPrefix(class, prefix) })
}

// hardware gives every device its driver and says what machine this is.
func (n *node) hardware(ctx context.Context) (string, error) {
	release, err := hardware.Release(n.host)
	if err != nil {
		return "", err
	}
	tree, err := hardware.OpenTree("/", release)
	if err != nil {
		return "", err
	}
	n.modules = hardware.NewLoader(n.host, tree, hardware.Options{
		Params:    map[string]string{"nbd": blockdev.ModuleParameters},
		Blacklist: strings.Split(n.cmdline.Value("modprobe.blacklist"), ","),
		Later:     forDisks,
		Log:       n.log,
	})
	report := n.modules.Coldplug(ctx)
	if tooLate(ctx) {
		return "", fmt.Errorf("%w: %s", errHangs, report)
	}
	// Sticks and slow buses come later than this stage; they are served until
	// the distribution's udev takes over.
	n.background.Go(func(ctx context.Context) error {
		return n.modules.Watch(ctx, func(r hardware.Report) { n.log.Info("late devices: " + r.String()) })
	})
	_, err = n.modules.Load(ctx, "af_packet") // DHCP needs it, and no device asks for it
	n.connectEvents()
	n.machine = hardware.Describe(n.host.Root)
	n.boot.Firmware = n.machine.Firmware
	if n.machine.Memory < leastMemory {
		err = errors.Join(err, fmt.Errorf("the kernel sees %d MiB of memory, a machine needs 256 MiB: parts of the initramfs, drivers among them, may be missing", n.machine.Memory>>20))
	}
	return fmt.Sprintf("%s; %s", n.machine, report), err
}

// connectEvents opens the port on which a virtual machine's host listens.
func (n *node) connectEvents() {
	port, err := event.OpenPort("/sys", "/dev", event.PortName("uinit"))
	if err != nil {
		return // nobody listens on a real machine
	}
	if err := n.early.connect(port); err != nil {
		n.log.Debug("events", "error", errors.Join(err, port.Close()))
	}
}
