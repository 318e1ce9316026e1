package scenarios

import (
	"strings"
	"testing"

	"viver.lan/qemu-tests/harness"
)

// homesRole is held by each machine that has a disk for homes.
const homesRole = "nfs/server"

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
	// The queue of the rune batch waits for its place, which root may make here only.
	run(t, c.store, "install", "-d", "-o", "slurm", "-g", "slurm", "-m", "700", queueState)

	// The other disk has homes too, but these are in use.
	unpin(t, c, homesRole)
	eventually(t, c.work, "to know that its homes are not those of the network", func() bool {
		text, err := c.work.Run(t.Context(), "journalctl", "-q", "-o", "cat", "-u", "viver-nfs-server")
		return err == nil && strings.Contains(text, "the homes of this network are on another disk; those on this one are not shared")
	})

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
	if text, err := c.work.Run(t.Context(), "cat", "/proc/fs/nfsd/threads"); err == nil && strings.TrimSpace(text) != "0" {
		t.Errorf("a machine shares other homes than those in use: %s threads", text)
	}
	if why, err := c.work.Run(t.Context(), "sh", "-c", "grep -c ' /home nfs4 ' /proc/mounts"); err != nil || strings.TrimSpace(why) != "1" {
		t.Errorf("mounts at /home: %s, %v; want one", why, err)
	}
}
