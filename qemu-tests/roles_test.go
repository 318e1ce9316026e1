package scenarios

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"viver.lan/internal/control"
	"viver.lan/internal/runner"
	"viver.lan/qemu-tests/harness"
)

// dutyRune is a bundle with a role that one machine of the network holds, and with all
// that may go with a role.
func dutyRune(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "duty")
	for name, text := range map[string]string{
		"rune.toml": `name = "duty"
[[role]]
name  = "server"
wants = "one"
[[service]]
name  = "server"
role  = "server"
start = ["/bin/sleep", "100000"]
[[file]]
path  = "/run/duty"
roles = ["server"]
live  = true
`,
		"files/run/duty.tmpl": "{{ range .Members }}{{ .Hostname }}\n{{ end }}",
		"hooks/booted":        "#!/bin/sh\necho booted >>/run/duty.log\n",
		"hooks/role-gained":   "#!/bin/sh\necho gained >>/run/duty.log\n",
		"hooks/role-lost":     "#!/bin/sh\necho lost >>/run/duty.log\n",
		"hooks/shutdown":      "#!/bin/sh\necho \"<5>duty: $VIVER_HOSTNAME shuts down\" >/dev/kmsg\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// duty is what is known on a machine of the rune duty.
func duty(t *testing.T, vm *harness.VM) runner.RuneState {
	t.Helper()
	var s runner.State
	text, err := vm.Run(t.Context(), "@read", control.RunesStateFile)
	if err != nil || json.Unmarshal([]byte(text), &s) != nil {
		return runner.RuneState{}
	}
	for _, r := range s.Runes {
		if r.Name == "duty" {
			return r
		}
	}
	return runner.RuneState{}
}

// onDuty reports whether a machine has all that goes with the role.
func onDuty(t *testing.T, vm *harness.VM) bool {
	t.Helper()
	d := duty(t, vm)
	_, err := vm.Run(t.Context(), "test", "-s", "/run/duty")
	return len(d.Roles) == 1 && len(d.Services) == 1 && err == nil
}

// rolesMove has the operator give a role to one machine, whatever the vote was, and ends
// what carries it out there.
func rolesMove(t *testing.T, first, node *harness.VM) {
	eventually(t, first, "one machine to hold the role", func() bool { return onDuty(t, first) != onDuty(t, node) })
	giveKey(t, first)
	run(t, first, nodeViver, "role", "pin", "duty/server", node.MAC(0), "--key", ownersKey)
	eventually(t, node, "the role", func() bool { return onDuty(t, node) && !onDuty(t, first) })
	eventually(t, node, "both machines in its file", func() bool { return len(strings.Fields(run(t, node, "@read", "/run/duty"))) == 2 })
	run(t, first, nodeViver, "role", "unpin", "duty/server", "--key", ownersKey)
	if log := run(t, node, "@read", "/run/duty.log"); !strings.Contains(log, "gained") || !strings.Contains(log, "booted") {
		t.Errorf("hooks: %q", log)
	}

	pids := processes(t, node, "@vrune")
	if len(pids) != 1 {
		t.Fatalf("processes called @vrune: %v, want one", pids)
	}
	service := func() []int { return processes(t, node, "/bin/sleep") }
	eventually(t, node, "its service", func() bool { return len(service()) == 1 }) // it is noted before it runs
	before := service()
	run(t, node, "@kill", "KILL", strconv.Itoa(pids[0]))
	eventually(t, node, "@vrune to be started again", func() bool {
		now := processes(t, node, "@vrune")
		return len(now) == 1 && now[0] != pids[0]
	})
	if after := service(); len(before) != 1 || len(after) != 1 || after[0] != before[0] {
		t.Errorf("the service had the processes %v before @vrune was killed, and %v after", before, after)
	}
	if !onDuty(t, node) {
		t.Errorf("after @vrune was killed: %+v", duty(t, node))
	}
}
