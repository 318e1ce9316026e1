package bootbench

import (
	"context"
	"fmt"
	"time"

	"viver.lan/internal/cputime"
	"viver.lan/internal/event"
	"viver.lan/internal/sleep"
	"viver.lan/qemu-tests/guests/execproto"
	"viver.lan/qemu-tests/harness"
	"viver.lan/qemu-tests/harness/lan"
)

// Of a first node that is idle.
const (
	idleShare = 0.15             // of the time, at most
	idleFor   = 6 * time.Second  // without a break
	idleLimit = 10 * time.Minute // then the measurement goes on and says so
)

// startFirst switches the machine with the medium on and returns when others
// can boot from it and it has nothing to do any more.
func (b *bench) startFirst(ctx context.Context, lab *harness.Lab, segment *lan.Switch, m *meters, medium string) (*harness.VM, error) {
	b.progress.report("the first node boots")
	vm, err := lab.Start(ctx, harness.Config{Name: "first", Memory: memory, CDROM: medium, NICs: []harness.NIC{{LAN: segment, Mangle: m.see}}})
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"dhcp", "tftp", "http"} {
		if _, err := vm.WaitFor(ctx, name+" on the first node", func(rec event.Record) bool {
			s, ok := harness.As[event.Service](rec)
			return ok && s.Name == name && s.State == event.Started
		}); err != nil {
			return nil, err
		}
	}
	if _, err := vm.WaitReady(ctx); err != nil {
		return nil, err
	}
	b.progress.report("the first node becomes idle")
	return vm, b.waitIdle(ctx, vm)
}

// waitIdle returns when a machine has done nearly nothing for a while, by its own
// account: to the host, one that is starved looks idle, too.
func (b *bench) waitIdle(ctx context.Context, vm *harness.VM) error {
	began, quiet := time.Now(), time.Duration(0)
	last, at, err := busyOf(ctx, vm)
	if err != nil {
		return err
	}
	for quiet < idleFor {
		if err := sleep.For(ctx, time.Second); err != nil {
			return fmt.Errorf("%s should become idle: %w", vm.Name(), err)
		}
		busy, now, err := busyOf(ctx, vm)
		if err != nil {
			return err
		}
		share := (busy - last) / now.Sub(at).Seconds()
		if quiet += now.Sub(at); share > idleShare {
			quiet = 0
		}
		if now.Sub(began) > idleLimit {
			b.note("%s is not idle after %v: it is busy for %.0f %% of the time", vm.Name(), idleLimit, 100*share)
			return nil
		}
		last, at = busy, now
	}
	return nil
}

// busyOf is what a machine's processors have worked, in seconds, and when it was
// asked.
func busyOf(ctx context.Context, vm *harness.VM) (float64, time.Time, error) {
	stat, err := vm.Run(ctx, execproto.CmdRead, "/proc/stat")
	if err != nil {
		return 0, time.Time{}, err
	}
	times, err := cputime.Parse([]byte(stat))
	return times.Seconds(), time.Now(), err
}
