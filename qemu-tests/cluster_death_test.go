package scenarios

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/control"
	"viver.lan/internal/roles"
	"viver.lan/internal/runner"
	"viver.lan/internal/testtable"
	"viver.lan/qemu-tests/harness"
)

// holdsRole reports whether a machine holds a role, which its own runner says.
func holdsRole(t *testing.T, vm *harness.VM, name string) bool {
	t.Helper()
	var s runner.State
	text, err := vm.Run(t.Context(), "@read", control.RunesStateFile)
	return err == nil && json.Unmarshal([]byte(text), &s) == nil &&
		slices.ContainsFunc(s.Held, func(held roles.Name) bool { return held.String() == name })
}

// logged reports whether a machine's watcher has seen an event of a machine of that name.
func logged(t *testing.T, vm *harness.VM, event, name string) bool {
	t.Helper()
	text, err := vm.Run(t.Context(), "cat", "/run/viver/watch.log")
	return err == nil && strings.Contains(text, " "+event+" "+name+" ")
}

// pin has one machine hold a role, and no other.
func pin(t *testing.T, c cluster, role string, to *harness.VM) {
	t.Helper()
	run(t, c.first, nodeViver, "role", "pin", role, to.MAC(0), "--key", ownersKey)
}

// unpin leaves it to the machines again. Who holds the role keeps it.
func unpin(t *testing.T, c cluster, role string) {
	t.Helper()
	run(t, c.first, nodeViver, "role", "unpin", role, "--key", ownersKey)
}

// theFirstDies pulls the plug of the machine with the medium, which gives the time and
// keeps the queue: another takes each of its roles, and the watchers report the death.
// The queue is on a disk that the others have, so it is not lost.
func theFirstDies(t *testing.T, c cluster) {
	first := ready(t, c.first)
	left := []*harness.VM{c.store, c.work}
	deaths := testtable.Table{Name: "deaths", Columns: []string{"role", "goes to", "seconds after the power was cut"}}
	moved := []string{"batch/controller", "time/server", balancer}
	for _, role := range moved {
		pin(t, c, role, c.first)
	}
	eventually(t, c.first, "the first to hold "+strings.Join(moved, ", "), func() bool {
		return !slices.ContainsFunc(moved, func(role string) bool { return !holdsRole(t, c.first, role) })
	})
	for _, role := range moved {
		unpin(t, c, role)
	}
	holds(t, c.work, fmt.Sprintf("at %s is UP", first), "scontrol", "ping")
	run(t, c.work, asAnna("sbatch", "--hold", "--job-name=survivor", "--nodelist="+ready(t, c.work), "--output=/tmp/survivor", "--wrap=hostname")...)
	holds(t, c.store, "survivor", "cat", queueState+"/job_state") // it takes its time to save it

	c.first.PowerCut()
	since := time.Now()
	for len(moved) > 0 {
		eventually(t, c.work, "one of the others to hold "+strings.Join(moved, " or "), func() bool {
			n := len(moved)
			moved = slices.DeleteFunc(moved, func(role string) bool {
				to := slices.IndexFunc(left, func(vm *harness.VM) bool { return holdsRole(t, vm, role) })
				if to >= 0 {
					deaths.Add(t, role, left[to].Name(), fmt.Sprintf("%.0f", time.Since(since).Seconds()))
				}
				return to >= 0
			})
			return len(moved) < n
		})
	}
	eventually(t, c.work, "a watcher to say that the first is down", func() bool {
		return logged(t, c.store, "down", first) || logged(t, c.work, "down", first)
	})
	for _, vm := range left {
		eventually(t, vm, "this machine to be a watcher, and the first to have no name", func() bool {
			_, err := vm.Run(t.Context(), "getent", "ahostsv4", first)
			return holdsRole(t, vm, "watch/watcher") && err != nil
		})
	}
	follows := func(vm, server *harness.VM) bool {
		text, err := vm.Run(t.Context(), "chronyc", "-n", "-c", "sources")
		return err == nil && strings.Contains(text, "^,*,"+whereIs(t, server).Lease.Address.Addr().String()+",")
	}
	eventually(t, c.work, "one of two clocks to follow the other", func() bool {
		return follows(c.work, c.store) != follows(c.store, c.work)
	})
	holds(t, c.work, "survivor", "squeue", "--noheader", "--format=%j")
	run(t, c.work, asAnna("scontrol", "release", "jobname=survivor")...)
	holds(t, c.work, ready(t, c.work), "cat", "/tmp/survivor")
	eventually(t, c.work, "a job to run on those that are left", func() bool {
		text, err := c.work.Run(t.Context(), asAnna("srun", "--immediate=20", "-N", "2", "hostname")...)
		on := strings.Fields(text)
		return err == nil && len(on) == 2 && slices.Contains(on, ready(t, c.store)) && slices.Contains(on, ready(t, c.work))
	})
	farmServes(t, left)
}
