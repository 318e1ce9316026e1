package bootbench

import (
	"context"
	"fmt"
	"time"

	"viver.lan/internal/event"
	"viver.lan/internal/sleep"
	"viver.lan/qemu-tests/harness"
	"viver.lan/qemu-tests/harness/lan"
)

// Of a first node that is idle.
const (
	idleShare = 0.15             // of one processor of the host, at most
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

// waitIdle returns when a machine has done nearly nothing for a while.
func (b *bench) waitIdle(ctx context.Context, vm *harness.VM) error {
	ctx, cancel := vm.While(ctx)
	defer cancel()
	began, quiet := time.Now(), time.Duration(0)
	last, at := vm.ProcessorSeconds(), time.Now()
	for quiet < idleFor {
		if err := sleep.For(ctx, time.Second); err != nil {
			return fmt.Errorf("%s should become idle: %w", vm.Name(), err)
		}
		now, used := time.Now(), vm.ProcessorSeconds()
		if used-last < idleShare*now.Sub(at).Seconds() {
			quiet += now.Sub(at)
		} else {
			quiet = 0
		}
		if time.Since(began) > idleLimit {
			b.note("%s is not idle after %v: it uses %.0f %% of a processor", vm.Name(), idleLimit, 100*(used-last)/now.Sub(at).Seconds())
			return nil
		}
		last, at = used, now
	}
	return nil
}
