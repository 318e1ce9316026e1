package scenarios

import (
	"strings"
	"testing"

	"viver.lan/qemu-tests/harness"
)

// programsRunOnAll starts programs on all machines, as a user that all have: by mpirun,
// and by Slurm.
func programsRunOnAll(t *testing.T, c cluster) {
	names := make(map[string]bool)
	for _, vm := range c.all() {
		names[ready(t, vm)] = true
		run(t, vm, "useradd", "--uid", "4321", "--no-create-home", "--home-dir", "/tmp", "--shell", "/bin/sh", "anna")
	}
	everywhere := func(vm *harness.VM, argv ...string) {
		t.Helper()
		argv = append([]string{"setpriv", "--reuid=anna", "--regid=anna", "--init-groups", "env", "-C", "/tmp", "HOME=/tmp"}, argv...)
		eventually(t, vm, strings.Join(argv, " ")+" to run on all", func() bool {
			out, err := vm.Run(t.Context(), argv...)
			if err != nil {
				t.Log(err)
			}
			on := make(map[string]bool)
			for _, line := range strings.Fields(out) {
				on[line] = names[line]
			}
			return err == nil && len(on) == len(names)
		})
	}
	everywhere(c.work, "mpirun", "-N", "1", "hostname")
	everywhere(c.store, "srun", "--immediate=20", "-N", "3", "hostname")
}
