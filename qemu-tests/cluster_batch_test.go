package scenarios

import (
	"strings"
	"testing"

	"viver.lan/qemu-tests/harness"
)

// queueState is where the queue is kept: in the homes, which all machines share.
const queueState = "/home/.slurm"

// asAnna runs a command as the user that all machines have. Slurm and MPI let nobody work
// from a directory that another machine lacks.
func asAnna(argv ...string) []string {
	return append([]string{"setpriv", "--reuid=anna", "--regid=anna", "--init-groups", "env", "-C", "/tmp", "HOME=/tmp"}, argv...)
}

// programsRunOnAll starts programs on all machines, as the user that all have: by mpirun,
// and by Slurm.
func programsRunOnAll(t *testing.T, c cluster) {
	names := make(map[string]bool)
	for _, vm := range c.all() {
		names[ready(t, vm)] = true
	}
	everywhere := func(vm *harness.VM, argv ...string) {
		t.Helper()
		argv = asAnna(argv...)
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
