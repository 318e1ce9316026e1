package show

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"viver.lan/qemu-tests/harness"
	"viver.lan/qemu-tests/harness/lan"
)

// Plan is a network: one machine with the medium, and others beside it.
type Plan struct {
	Medium string
	// USB: the medium is in a USB port instead of a CD drive.
	USB bool
	// Machines in order; the first one has the medium. Name, Firmware, Memory
	// and Display are used.
	Machines []harness.Config
	// Dir is where console logs, events and the capture are kept.
	Dir string
}

// Names for the machines of a plan.
func Names(n int) []string {
	all := []string{"first"}
	for i := 1; i < n; i++ {
		all = append(all, fmt.Sprintf("node%d", i))
	}
	return all[:n]
}

// Network is a plan that runs.
type Network struct {
	Board *Board
	Lab   *harness.Lab

	plan     Plan
	machines []harness.Config // with medium and network card
	vms      []*harness.VM
	// stopDrawing ends the live picture; it may be called more than once.
	stopDrawing func()
}

// Open prepares a network; one of several machines takes the host for itself.
func Open(ctx context.Context, plan Plan, board *Board) (*Network, error) {
	if len(plan.Machines) == 0 {
		return nil, errors.New("a network has one machine at least")
	}
	lab, err := harness.Open(ctx, plan.Dir, harness.Options{VMs: len(plan.Machines), OnRecord: board.Take})
	if err != nil {
		return nil, err
	}
	n := &Network{Board: board, Lab: lab, plan: plan}
	segment, err := lab.LAN("lan")
	if err != nil {
		return nil, errors.Join(err, lab.Close())
	}
	for i, c := range plan.Machines {
		n.machines = append(n.machines, n.equip(c, i == 0, segment))
	}
	return n, nil
}

// equip puts medium and network card into a machine.
func (n *Network) equip(c harness.Config, first bool, segment *lan.Switch) harness.Config {
	m := &Machine{Name: c.Name, Firmware: c.Firmware, Boots: "network"}
	switch {
	case first && n.plan.USB:
		c.USBStick, m.Boots = n.plan.Medium, "USB stick"
	case first:
		c.CDROM, m.Boots = n.plan.Medium, "CD"
	}
	// UEFI's own PXE client is what a real machine has; BIOS has none here but
	// iPXE in the card's ROM.
	c.NICs = []harness.NIC{{LAN: segment, NoROM: c.Firmware.IsUEFI() && !first}}
	n.Board.Add(m)
	return c
}

// Boot switches all machines on, as BootUpTo does.
func (n *Network) Boot(ctx context.Context) error { return n.BootUpTo(ctx, len(n.machines)) }

// BootUpTo switches machines on until so many are: the first one and, as soon as it
// serves, the others one after another. It returns when all can be logged in to, and with
// an error when one cannot.
func (n *Network) BootUpTo(ctx context.Context, count int) error {
	var g errgroup.Group // a machine that fails leaves the others running
	for i := len(n.vms); i < count; i++ {
		c := n.machines[i]
		if i == 1 {
			if err := n.serving(ctx, n.vms[0]); err != nil {
				return errors.Join(fmt.Errorf("nobody can boot from %s: %w", n.vms[0].Name(), err), g.Wait())
			}
		}
		// The clock starts before QEMU does.
		n.Board.update(c.Name, func(m *Machine) { m.PowerOn = time.Now() })
		vm, err := n.Lab.Start(ctx, c)
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		n.vms = append(n.vms, vm)
		g.Go(func() error { return n.login(ctx, vm) })
	}
	return g.Wait()
}

// serving waits until others can boot from a machine.
func (n *Network) serving(ctx context.Context, vm *harness.VM) error {
	ctx, cancel := vm.While(ctx)
	defer cancel()
	return n.Board.Wait(ctx, vm.Name(), (*Machine).ServesBoot)
}

// login waits until the machine's distribution is up: the agent of test
// images speaks, or the console asks for a name.
func (n *Network) login(parent context.Context, vm *harness.VM) error {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	results := make(chan error, 2)
	var g errgroup.Group
	g.Go(func() error {
		_, err := vm.WaitReady(ctx)
		results <- err
		return nil
	})
	g.Go(func() error {
		_, err := vm.WaitConsole(ctx, `(?m)login: ?$`)
		results <- err
		return nil
	})
	err := <-results
	at := time.Now()
	cancel()
	_ = g.Wait() // always nil
	if parent.Err() != nil {
		return context.Cause(parent) // whoever watches has seen enough
	}
	n.Board.update(vm.Name(), func(m *Machine) {
		if err == nil {
			m.Login = at
			n.Board.pending = append(n.Board.pending, n.Board.plain("%-7s %6.1f s  ready%s", m.Name, at.Sub(m.PowerOn).Seconds(), m.whoami())...)
		} else if m.Stopped == "" {
			m.Stopped = "not ready: " + m.doing() // the error itself comes below the report
		}
	})
	return err
}

// plain is a line that only a board without terminal shows.
func (b *Board) plain(format string, args ...any) []string {
	if b.width != nil {
		return nil
	}
	return []string{fmt.Sprintf(format, args...)}
}

// VMs are the machines that were switched on, in the plan's order.
func (n *Network) VMs() []*harness.VM { return n.vms }

// Close switches everything off. The files stay in the plan's folder.
func (n *Network) Close() error { return n.Lab.Close() }
