package scenarios

import (
	"strings"
	"testing"

	"viver.lan/qemu-tests/harness"
)

// holds waits until a command on a machine prints a text.
func holds(t *testing.T, vm *harness.VM, text string, argv ...string) {
	t.Helper()
	eventually(t, vm, strings.Join(argv, " ")+" to print "+text, func() bool {
		out, err := vm.Run(t.Context(), argv...)
		return err == nil && strings.Contains(out, text)
	})
}

// logsAreCollected looks for what one machine logs on one with a disk: also what its
// kernel says last. Two have a disk, and either may have become the archive.
func logsAreCollected(t *testing.T, c cluster) {
	const archive = "logs/archive"
	pin(t, c, archive, c.store)
	eventually(t, c.store, "to hold "+archive, func() bool { return holdsRole(t, c.store, archive) })
	unpin(t, c, archive)
	name := ready(t, c.work)
	run(t, c.work, "logger", "-t", "viver-test", "a line of work")
	holds(t, c.store, "a line of work", "journalctl", "-q", "-D", "/var/log/journal/remote", "-o", "cat", "_HOSTNAME="+name)
	// To the consoles, of which the network is one, at once; only there has it this identifier.
	holds(t, c.work, "1", "cat", "/sys/kernel/config/netconsole/viver/enabled")
	run(t, c.work, "sh", "-c", "echo '<0>as if it were the end' >/dev/kmsg")
	holds(t, c.store, name+": ", "journalctl", "-q", "-o", "cat", "-t", "netconsole", "-g", "as if it were the end")
}

// theGoneIsReported cuts the cable of a machine: the watchers say so, and call a program.
// What the machine logs meanwhile is collected when it is back.
func theGoneIsReported(t *testing.T, c cluster) {
	name := ready(t, c.work)
	for _, vm := range []*harness.VM{c.first, c.store} {
		run(t, vm, "sh", "-c", `mkdir -p /etc/viver/watch.d && printf '#!/bin/sh\necho "$@" >>/run/told\n' >/etc/viver/watch.d/note && chmod +x /etc/viver/watch.d/note`)
	}
	told := func(event string) func() bool {
		return func() bool {
			var all string
			for _, vm := range []*harness.VM{c.first, c.store} {
				text, _ := vm.Run(t.Context(), "cat", "/run/told")
				all += text
			}
			return strings.Contains(all, event+" "+name+" ")
		}
	}
	cable := func(up bool) {
		t.Helper()
		if err := c.work.SetLink(t.Context(), 0, up); err != nil {
			t.Fatal(err)
		}
	}
	cable(false)
	eventually(t, c.first, "word that "+name+" is down", told("down"))
	run(t, c.work, "logger", "-t", "viver-test", "a line from nowhere")
	cable(true)
	eventually(t, c.first, "word that "+name+" is up", told("up"))
	holds(t, c.store, "a line from nowhere", "journalctl", "-q", "-D", "/var/log/journal/remote", "-o", "cat", "_HOSTNAME="+name)
}
