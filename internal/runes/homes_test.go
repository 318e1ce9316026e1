package runes

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// homesPrograms stands in for the programs that need the kernel's NFS, which namespaces do
// not have: a server is a name in /srv/net, which all machines share, and to mount is to
// bind. Waits are short.
const homesPrograms = `#!/bin/sh
net=/srv/net mounted=/run/mounted-home
case ${0##*/} in
rpc.nfsd)
	[ "$1" != 0 ] || exec rm -f "$net/exports/$(cat /run/viver-nfs/address 2>/dev/null)"
	readlink -f "$(cat /run/viver-nfs/serves)" >"$net/exports/$2" ;;
rpc.mountd) exec /bin/sleep infinity ;;
mount)
	for dir; do from=$to to=$dir; done
	case $* in
	*"-t nfs "*)
		mount --bind "$(cat "$net/exports/${from%:/}")" "$to" 2>/dev/null || exit 32
		[ "$to" != /home ] || echo "${from%:/}" >"$mounted" ;;
	*--bind*) exec /bin/mount "$@" ;;
	esac ;;
umount)
	for dir; do :; done
	[ "$dir" != /home ] || rm -f "$mounted"
	exec /bin/umount -l "$dir" ;;
awk) cat "$mounted" 2>/dev/null ;; # /proc/self/mounts would say that it is no NFS
find) echo ready ;;
sleep) if [ "$1" = 15 ]; then exec /bin/sleep 3; else exec /bin/sleep 0.2; fi ;;
esac
`

// disk puts a disk for homes into a machine.
func (m *labMachine) disk(t *testing.T, name string) {
	t.Helper()
	must(t, os.MkdirAll("/run/net/"+name+"/home", 0o755))
	must(t, os.MkdirAll(filepath.Join(m.root, "run/viver/saved"), 0o755))
	must(t, os.Symlink("/srv/net/"+name, filepath.Join(m.root, "run/viver/saved/viver-data")))
	m.roles = append(m.roles, "server")
}

// openHomes is a network with the rune nfs.
func openHomes(t *testing.T, settings map[string]string, n int) *network {
	t.Helper()
	must(t, os.MkdirAll("/run/net/exports", 0o755))
	must(t, os.MkdirAll("/run/programs/sbin", 0o755))
	for _, name := range []string{"rpc.nfsd", "rpc.mountd", "exportfs", "nfsdcld", "modprobe", "mount", "mount.nfs", "umount", "awk", "find", "sleep"} {
		must(t, os.WriteFile("/run/programs/sbin/"+name, []byte(homesPrograms), 0o755))
	}
	return openNetwork(t, "nfs", settings, n, func(root string) {
		must(t, unix.Mount("overlay", filepath.Join(root, "usr"), "overlay", unix.MS_RDONLY, "lowerdir=/run/programs:/usr"))
		for _, dir := range []string{"home", "srv/net", "run/viver/root"} {
			must(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
		}
		must(t, unix.Mount("/run/net", filepath.Join(root, "srv/net"), "", unix.MS_BIND, ""))
		// The memory of a machine, which others reach as they do the disks.
		must(t, os.MkdirAll("/run/net/memory-"+filepath.Base(root), 0o755))
		must(t, os.Symlink("/srv/net/memory-"+filepath.Base(root), filepath.Join(root, "run/viver/root/rw")))
	})
}

// lost ends a server of homes as a pulled plug does.
func (m *labMachine) lost(t *testing.T) {
	t.Helper()
	m.die(t)
	_ = os.Remove("/run/net/exports/" + m.facts.Address)
}

// sees waits until some machines have a file of a user's.
func sees(t *testing.T, text string, machines ...*labMachine) {
	t.Helper()
	for _, m := range machines {
		until(t, func() string {
			if got := m.read("/home/letter"); got != text {
				return fmt.Sprintf("%s reads %q, want %q", m.name, got, text)
			}
			return ""
		})
	}
}

// rests waits until a service of a machine says that there is no more to do.
func (m *labMachine) rests(t *testing.T, service string) {
	t.Helper()
	until(t, func() string {
		args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", m.services[service].cmd.Process.Pid))
		if !strings.HasPrefix(string(args), "tail\x00") {
			return fmt.Sprintf("%s of %s rests: %q", service, m.name, args)
		}
		return ""
	})
}

// Two machines have a disk for homes: those of one are used, and of that one only, also
// when it is gone and the other is not. They move with the disk.
func TestNetnsTwoDisksForHomes(t *testing.T) {
	if !inNetwork(t) {
		return
	}
	l := openHomes(t, nil, 4)
	a, b, c, d := l.machines[0], l.machines[1], l.machines[2], l.machines[3]
	d.up = false
	a.disk(t, "one")
	b.disk(t, "two")
	l.converge(t)
	b.rests(t, "server")
	for _, m := range []*labMachine{b, c} {
		m.rests(t, "client")
	}
	c.write(t, "/home/letter", "hello", 0o644)
	sees(t, "hello", a, b, c)

	a.lost(t)
	l.converge(t)
	b.rests(t, "server")
	if _, err := os.Stat("/run/net/exports/" + b.facts.Address); err == nil {
		t.Error("other homes are shared in the place of those that are gone")
	}
	if _, err := os.Stat("/run/net/two/home/letter"); err == nil {
		t.Error("the other disk has a file of a user's")
	}

	d.up = true
	d.disk(t, "one")
	l.converge(t)
	sees(t, "hello", d, c, b)
	b.write(t, "/home/letter", "from n4's disk", 0o644)
	sees(t, "from n4's disk", c, d)
}

// No machine has a disk for homes: each has a home of its own.
func TestNetnsNoDiskForHomes(t *testing.T) {
	if !inNetwork(t) {
		return
	}
	l := openHomes(t, nil, 2)
	l.machines[0].roles = []string{"memory"}
	l.converge(t)
	l.machines[0].rests(t, "memory")
	for _, m := range l.machines {
		m.rests(t, "client")
	}
	l.machines[1].write(t, "/home/letter", "hello", 0o644)
	sees(t, "", l.machines[0])
}

// The settings say that homes may be lost: they are in the memory of one machine, and when
// it dies another begins with none.
func TestNetnsHomesInMemory(t *testing.T) {
	if !inNetwork(t) {
		return
	}
	l := openHomes(t, map[string]string{"volatile": "true"}, 3)
	a, b, c := l.machines[0], l.machines[1], l.machines[2]
	a.roles = []string{"memory"}
	l.converge(t)
	b.rests(t, "client")
	c.rests(t, "client")
	c.write(t, "/home/letter", "hello", 0o644)
	sees(t, "hello", a, b)
	a.lost(t)
	b.roles = []string{"memory"}
	l.converge(t)
	c.rests(t, "client") // before, it has no homes either
	sees(t, "", b, c)
	c.write(t, "/home/letter", "again", 0o644)
	sees(t, "again", b)
}
