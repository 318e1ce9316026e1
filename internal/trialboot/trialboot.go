// Package trialboot boots a medium once in a virtual machine of this computer, to learn
// what such a machine reads of its root disk until it is up.
//
// The machine is QEMU's: with KVM where that works, else without. Its network is
// QEMU's own, with a DHCP server and nothing behind it; no packet gets out. What it does
// is known by its typed events (package event), which it writes to virtio-serial
// ports. The invariant: no machine outlives the call that started it.
//
// The scenarios in qemu-tests have a harness of their own, which knows several machines,
// firmwares and faults.
package trialboot

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"viver.lan/internal/event"
	"viver.lan/internal/hosttool"
)

const (
	program = "qemu-system-x86_64"
	// limit ends a boot that does not: without KVM and beside other work it may take
	// some minutes.
	limit = time.Hour
	// silence ends one that neither says nor does anything.
	silence = 5 * time.Minute
)

// Config says what to boot.
type Config struct {
	// Medium is an ISO of package bootmedium.
	Medium string
	// Memory of the machine in MiB.
	Memory int
	// Progress is told what stage of the boot has ended, and why the machine counts as
	// up; may be nil.
	Progress func(stage string)
}

// Available returns an error if this computer has no QEMU.
func Available() error {
	_, err := find()
	return err
}

func find() (string, error) {
	path, err := hosttool.Find(program)
	if err != nil {
		return "", fmt.Errorf("%w: install qemu-system-x86, or take the record of a real machine", err)
	}
	return path, nil
}

// Record boots a medium and returns the boot record of the machine, as it was encoded
// there (package bootrecord).
func Record(ctx context.Context, c Config) ([]byte, error) {
	path, err := find()
	if err != nil {
		return nil, err
	}
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	record, begun, err := c.boot(ctx, path, "kvm")
	if err != nil && !begun && ctx.Err() == nil {
		// There may be no KVM, or one on which no kernel gets far.
		record, _, err = c.boot(ctx, path, "tcg")
	}
	return record, err
}

// boot boots the medium with an accelerator of QEMU. It reports whether our part of the
// boot had begun.
func (c Config) boot(ctx context.Context, path, accelerator string) (record []byte, begun bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it was not up after %v", limit))
	m, err := start(ctx, path, c, accelerator)
	if err != nil {
		cancel()
		return nil, false, err
	}
	record, begun, err = m.wait(ctx, c.Progress)
	cancel() // this switches it off
	<-m.off
	if err != nil {
		return nil, begun, fmt.Errorf("%w; the last that it printed:\n%s", err, readable(m.printed.String()))
	}
	return record, true, nil
}

// wait reads what the machine reports until it is up, and whether it has reported
// anything.
func (m *vm) wait(ctx context.Context, progress func(string)) (record []byte, begun bool, err error) {
	quiet := time.NewTimer(silence)
	defer quiet.Stop()
	for {
		select {
		case r, ok := <-m.reports:
			if !ok {
				return nil, begun, errors.New("the machine was switched off before it was up")
			}
			quiet.Reset(silence)
			begun = begun || r != nil
			if e, up := r.(event.Up); up {
				progress("up: " + e.Reason)
				return e.Record, begun, nil
			}
			if e, ok := r.(event.Stage); ok {
				if err := show(e, progress); err != nil {
					return nil, begun, err
				}
			}
		case <-quiet.C:
			return nil, begun, fmt.Errorf("the machine has printed nothing for %v", silence)
		case <-ctx.Done():
			return nil, begun, context.Cause(ctx)
		}
	}
}

// show tells of a stage that ended, and returns an error if the boot did with it.
func show(s event.Stage, progress func(string)) error {
	switch {
	case s.State == event.Stopped:
		return fmt.Errorf("the boot stopped at its stage %s: %s", s.Name, s.Detail)
	case s.State != event.Started:
		progress(s.Name)
	}
	return nil
}

// arguments is QEMU's command line; descriptors are what its ports write to.
func (c Config) arguments(accelerator string, descriptors map[string]uintptr) []string {
	a := []string{
		"-name", "viver-profile", "-no-user-config", "-nodefaults",
		// SeaBIOS and GRUB write to the serial port, too.
		"-machine", "q35,graphics=off,accel=" + accelerator,
		"-m", strconv.Itoa(c.Memory), "-smp", "1", // without KVM more are slower
		"-display", "none", "-device", "VGA", "-device", "virtio-rng-pci",
		"-drive", "if=none,id=cd,media=cdrom,readonly=on,format=raw,file=" + strings.ReplaceAll(c.Medium, ",", ",,"),
		"-device", "ide-cd,bus=ide.0,drive=cd,bootindex=0", "-boot", "strict=on",
		"-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile=",
		"-device", "virtio-serial-pci",
	}
	a = append(a, "-cpu", CPU(accelerator))
	for _, name := range ports() {
		a = append(a, "-chardev", fmt.Sprintf("file,id=%s,path=/dev/fd/%d", name, descriptors[name]))
		if name == console {
			a = append(a, "-serial", "chardev:"+name)
		} else {
			a = append(a, "-device", fmt.Sprintf("virtserialport,chardev=%s,name=%s", name, event.PortName(name)))
		}
	}
	return a
}

// CPU is QEMU's name of a processor that a PC may have. Without KVM that is QEMU's usual
// one and the random numbers that processors have had since 2012: without them a kernel
// that no boot loader seeded waits for a second or two.
func CPU(accelerator string) string {
	if accelerator == "kvm" {
		return "host"
	}
	return "qemu64,+rdrand"
}

// console is the port for the machine's messages; the others are named after programs.
const console = "console"

func ports() []string { return []string{console, "uinit", "vfield"} }
