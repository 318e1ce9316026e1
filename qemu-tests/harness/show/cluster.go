package show

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"viver.lan/qemu-tests/harness"
	"viver.lan/qemu-tests/harness/media"
)

// clusterMachines is how many machines the demo of a cluster has in the end.
const clusterMachines = 4

// DemoCluster boots machines of the recipe `cluster`: one, one more, two more. Each time
// they build a program together, compute by MPI and work off a queue, the last time while
// one of them loses its power. The medium has users, settings and programs of images/cluster.
func DemoCluster(ctx context.Context, out io.Writer, medium string, bundles []string, dir string) error {
	own, remove, err := withRunes(ctx, medium, bundles)
	if err != nil {
		return err
	}
	defer remove()
	homes := filepath.Join(filepath.Dir(own), "homes.img")
	if err := media.NewDisk(ctx, homes, media.DiskSpec{FS: media.Ext4, Size: 512 << 20, Files: map[string]string{"viver-data/home/": ""}}); err != nil {
		return err
	}
	plan := Plan{Medium: own, Dir: dir}
	for _, name := range Names(clusterMachines) {
		plan.Machines = append(plan.Machines, harness.Config{Name: name, Firmware: harness.BIOS, Memory: 1024})
	}
	plan.Machines[0].Disks = []string{homes}
	var missing []string
	err = session(ctx, out, plan, func(n *Network) error {
		done, bootErr := n.work(ctx)
		checks := workChecks(done)
		n.finish(out, bootErr, checks)
		_ = writeWork(out, n.Board.Machines(), done) // nobody left to tell
		missing = Missing(n.Board.Machines(), checks)
		return context.Cause(ctx)
	})
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%w: %s", ErrNotShown, strings.Join(missing, "; "))
	}
	return err
}

// work is the demo of a cluster. It ends early when a machine does not boot, or what the
// others need is not there.
func (n *Network) work(ctx context.Context) (done []Work, bootErr error) {
	for _, count := range []int{1, 2, clusterMachines} {
		if bootErr = n.BootUpTo(ctx, count); bootErr != nil {
			return done, bootErr
		}
		if err := n.united(ctx, count); err != nil {
			return append(done, Work{What: oneComputer, Machines: count, Err: err}), nil
		}
		for _, do := range []func() Work{
			func() Work { return n.build(ctx, nil) },
			func() Work { return n.compute(ctx) },
			func() Work { return n.queue(ctx, 0) },
		} {
			w := do()
			if ctx.Err() != nil {
				return done, nil // whoever watches has seen enough
			}
			done = append(done, w)
		}
	}
	lost := n.lose(ctx)
	if ctx.Err() != nil {
		return done, nil
	}
	return append(done, lost...), nil
}

// lose takes the power from the last machine while all build and the second one works off
// a queue. What computes by MPI afterwards does without it.
func (n *Network) lose(ctx context.Context) []Work {
	first, victim := n.vms[0], n.vms[len(n.vms)-1]
	queued := make(chan Work, 1)
	go func() { queued <- n.queue(ctx, 1) }()
	build := Work{What: filesCompiled, Machines: len(n.vms)}
	build.Err = n.until(ctx, first, "a task of the queue runs", func() bool {
		said, err := first.Run(ctx, "squeue", "-h", "-t", "R")
		return len(queued) > 0 || err == nil && said != ""
	})
	if build.Err == nil {
		build = n.build(ctx, func() error {
			over := len(queued) > 0
			victim.PowerCut()
			n.Board.Say("%s has lost its power", victim.Name())
			n.Board.update(victim.Name(), func(m *Machine) { m.Stopped = "its power is off" })
			if over {
				return errors.New("the queue had nothing left to do when the power went")
			}
			return nil
		})
	}
	all := []Work{build, <-queued}
	if build.Err == nil {
		compute := Work{What: processes, Machines: len(n.vms)}
		if compute.Err = n.hosts(ctx, len(n.vms)-1); compute.Err == nil {
			compute = n.compute(ctx)
		}
		all = append(all, compute)
	}
	for i := range all {
		all[i].Lost = victim.Name()
	}
	return all
}

// united waits until so many machines are one computer: their users have the same
// homes and get from one to another, and compilers and queue know all.
func (n *Network) united(ctx context.Context, count int) error {
	first := n.vms[0]
	for _, vm := range n.vms {
		if err := n.until(ctx, vm, "its homes are those of the disk", func() bool {
			mounts, err := vm.Run(ctx, "@read", "/proc/mounts")
			return err == nil && strings.Contains(mounts, " /home ")
		}); err != nil {
			return err
		}
	}
	if err := n.hosts(ctx, count); err != nil {
		return err
	}
	if err := n.until(ctx, first, "ssh leads to all machines", func() bool {
		_, err := n.anna(ctx, reachAll)
		return err == nil
	}); err != nil {
		return err
	}
	if err := n.until(ctx, first, "icecream knows all machines", func() bool {
		said, err := first.Run(ctx, "bash", "-c", listDaemons)
		return err == nil && strings.Count(said, ":10245)") == count
	}); err != nil {
		return err
	}
	return n.until(ctx, first, "Slurm has all machines", func() bool {
		said, err := first.Run(ctx, "sinfo", "-h", "-N", "-o", "%t")
		return err == nil && said == strings.Repeat("idle\n", count)
	})
}

// hosts waits until mpirun has the machines that are up, and no others.
func (n *Network) hosts(ctx context.Context, count int) error {
	return n.until(ctx, n.vms[0], fmt.Sprintf("mpirun has %d hosts", count), func() bool {
		said, err := n.vms[0].Run(ctx, "@read", "/run/viver-mpi/hosts")
		return err == nil && strings.Count(said, "\n") == count
	})
}

// until waits until something holds, as long as a machine shows signs of life. The machine's
// line says what for.
func (n *Network) until(ctx context.Context, vm *harness.VM, what string, holds func() bool) error {
	n.task(vm, "waits until "+what)
	defer n.task(vm, "")
	ctx, cancel := vm.While(ctx)
	defer cancel()
	for !holds() {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return fmt.Errorf("waited until %s: %w", what, context.Cause(ctx))
		}
	}
	return nil
}

// task shows what a machine does; "" for nothing.
func (n *Network) task(vm *harness.VM, what string) {
	n.Board.update(vm.Name(), func(m *Machine) { m.Task = what })
}

// anna runs a shell's line on the first machine as somebody who has logged in there.
func (n *Network) anna(ctx context.Context, line string) (string, error) {
	return n.vms[0].Run(ctx, "su", "-", "anna", "-c", line)
}
