package scenarios

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/control"
	"viver.lan/internal/roles"
	"viver.lan/internal/runner"
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

// theFirstDies pulls the plug of the machine with the medium, which gives the time and
// keeps the queue: another takes each of its roles, and the watchers report the death.
func theFirstDies(t *testing.T, c cluster) {
	first := ready(t, c.first)
	left := []*harness.VM{c.store, c.work}
	const key, viver, controller = "/run/owner.key", "/usr/local/bin/viver", "batch/controller"
	write(t, c.first, key, ownerKey(t), "600")
	run(t, c.first, viver, "role", "pin", controller, c.first.MAC(0), "--key", key)
	eventually(t, c.first, "the first to keep the queue and the time", func() bool {
		return holdsRole(t, c.first, controller) && holdsRole(t, c.first, "time/server")
	})
	run(t, c.first, viver, "role", "unpin", controller, "--key", key) // it keeps what it has
	holds(t, c.work, fmt.Sprintf("at %s is UP", first), "scontrol", "ping")

	c.first.PowerCut()
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
	eventually(t, c.work, "a job to run on those that are left", func() bool {
		text, err := c.work.Run(t.Context(), "setpriv", "--reuid=anna", "--regid=anna", "--init-groups", "env", "-C", "/tmp", "HOME=/tmp",
			"srun", "--immediate=20", "-N", "2", "hostname")
		on := strings.Fields(text)
		return err == nil && len(on) == 2 && slices.Contains(on, ready(t, c.store)) && slices.Contains(on, ready(t, c.work))
	})
}
