package scenarios

import (
	"strings"
	"testing"

	"viver.lan/qemu-tests/harness"
)

// homesAreShared writes on one machine and reads on another, also while the machine
// with the disk loses its power.
func homesAreShared(t *testing.T, c cluster) {
	server := whereIs(t, c.store).Lease.Address.Addr().String()
	mounted := func(vm *harness.VM) func() bool {
		return func() bool { return strings.Contains(run(t, vm, "@read", "/proc/mounts"), server+":/ /home nfs4 ") }
	}
	for _, vm := range []*harness.VM{c.first, c.work} {
		eventually(t, vm, "/home from "+c.store.Name(), mounted(vm))
	}
	// Whoever writes it owns it, by number, wherever it is looked at.
	run(t, c.store, "install", "-d", "-o", "1234", "-g", "1234", "/home/alice")
	const as = "setpriv --reuid=1234 --regid=1234 --clear-groups "
	run(t, c.first, "sh", "-c", as+"sh -c 'echo hello >/home/alice/letter'")
	for _, vm := range c.all() {
		eventually(t, vm, "the file of another machine", func() bool {
			text, err := vm.Run(t.Context(), "sh", "-c", "stat -c %u /home/alice/letter; cat /home/alice/letter")
			return err == nil && text == "1234\nhello\n"
		})
	}
	if text, err := c.work.Run(t.Context(), "touch", "/home/alice/by-root"); err == nil {
		t.Errorf("root of a client writes into a user's home: %s", text)
	}

	// Who loses the role that stands in for a disk has the disk still.
	run(t, c.store, "sh", "/run/viver-nfs/home", "lost", "memory")
	if threads := strings.TrimSpace(run(t, c.store, "cat", "/proc/fs/nfsd/threads")); threads == "0" {
		t.Error("the homes are shared no more since another role was lost")
	}

	resets := c.store.Resets()
	if err := c.store.Reset(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.store.WaitReset(t.Context(), resets); err != nil {
		t.Fatal(err)
	}
	written := make(chan error, 1)
	go func() {
		_, err := c.work.Run(t.Context(), "sh", "-c", as+"sh -c 'echo waited >/home/alice/while-away && sync -f /home/alice'")
		written <- err
	}()
	ready(t, c.store)
	if err := <-written; err != nil {
		t.Fatalf("a write while the server was off: %v", err)
	}
	for _, vm := range []*harness.VM{c.first, c.store} {
		eventually(t, vm, "what was written meanwhile, and before", func() bool {
			text, err := vm.Run(t.Context(), "cat", "/home/alice/while-away", "/home/alice/letter")
			return err == nil && text == "waited\nhello\n"
		})
	}
	if why, err := c.work.Run(t.Context(), "sh", "-c", "grep -c ' /home nfs4 ' /proc/mounts"); err != nil || strings.TrimSpace(why) != "1" {
		t.Errorf("mounts at /home: %s, %v; want one", why, err)
	}
}
