package runes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/sshkey"
)

// startSSHD starts the distribution's SSH server, as its init does.
func (m *labMachine) startSSHD(t *testing.T) {
	t.Helper()
	m.start(t, "/usr/sbin/sshd", "-D", "-e")
	until(t, func() string {
		conn, err := m.Dial(t.Context(), "tcp", m.AddrPort(22).String())
		if err != nil {
			return m.name + " listens: " + err.Error()
		}
		_ = conn.Close()
		return ""
	})
}

func TestNetnsMPI(t *testing.T) {
	if !inNetwork(t, "mpirun", "NPopenmpi", "ssh", "/usr/sbin/sshd") {
		return
	}
	l := openNetwork(t, "mpi", map[string]string{"trust": "members"}, 5, func(root string) { withUser(t, root) })
	a, b, c, stranger := l.machines[0], l.machines[1], l.machines[2], l.machines[3]
	stranger.up, l.machines[4].up = false, false
	l.converge(t)
	for _, m := range l.machines {
		m.startSSHD(t)
	}
	hosts := func(on *labMachine, args ...string) string {
		t.Helper()
		out, err := on.run(t, as("anna", append([]string{"mpirun"}, args...)...)...)
		if err != nil {
			t.Errorf("mpirun on %s: %v", on.name, err)
		}
		count := ""
		for _, m := range l.machines {
			count += strings.Repeat(m.name+" ", countLines(out, m.name))
		}
		return strings.TrimSpace(count)
	}
	if got := hosts(b, "hostname"); got != "n1 n1 n2 n2 n3 n3" {
		t.Errorf("two processes on each of three machines: %s", got)
	}
	// Programs that send each other messages: by TCP over the boot network, as between
	// machines there is nothing else.
	out, err := a.run(t, as("anna", "mpirun", "-np", "2", "-N", "1", "NPopenmpi", "-l", "1", "-u", "64", "-p", "0", "-n", "10", "-o", "/tmp/np")...)
	if err != nil {
		t.Errorf("ping-pong: %v: %s", err, out)
	}

	// A machine that is gone is asked no more, one that comes is asked.
	b.die(t)
	l.converge(t)
	if got := hosts(c, "-N", "1", "hostname"); got != "n1 n3" {
		t.Errorf("without n2: %s", got)
	}
	joins := l.machines[4]
	joins.up = true
	l.converge(t)
	if got := hosts(a, "-N", "1", "hostname"); got != "n1 n3 n5" {
		t.Errorf("with n5: %s", got)
	}

	ssh := func(on *labMachine, user, to, command string) (string, error) {
		return on.run(t, as(user, "ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", to, command)...)
	}
	if out, err := ssh(c, "anna", "n1", "id -un"); out != "anna\n" {
		t.Errorf("anna from a member: %q, %v", out, err)
	}
	for what, refused := range map[string]func() (string, error){
		"root":                func() (string, error) { return ssh(c, "root", "n1", "id") },
		"another user":        func() (string, error) { return ssh(c, "anna", "nobody@n1", "id") },
		"who is not a member": func() (string, error) { return ssh(stranger, "anna", a.facts.Address, "id") },
	} {
		if out, err := refused(); err == nil || !strings.Contains(err.Error(), "Permission denied") {
			t.Errorf("%s is let in: %q, %v", what, out, err)
		}
	}
	// A name is worth nothing without the key.
	stranger.write(t, "/run/viver-mpi/ssh_config", a.read("/run/viver-mpi/ssh_config"), 0o644)
	stranger.name, stranger.key = "n3", sshkey.Key{}
	stranger.write(t, "/etc/hosts", "127.0.0.1 localhost\n"+stranger.facts.Address+" n3\n", 0o644)
	if out, err := ssh(stranger, "anna", a.facts.Address, "id"); err == nil || !strings.Contains(err.Error(), "Permission denied") {
		t.Errorf("a stranger with the name of a member is let in: %q, %v", out, err)
	}
}

func TestMPIOnADebianRoot(t *testing.T) {
	where := image(t, map[string]string{
		"usr/bin/mpirun": "", "usr/sbin/sshd": "", "usr/bin/ssh": "", "etc/ssh/sshd_config.d/": "", "etc/ssh/ssh_config.d/": "",
		"etc/openmpi/openmpi-mca-params.conf": "btl = ^openib\nosc = ^ucx",
	})
	f := testFacts()
	f.Members = []MemberFact{{Hostname: f.Hostname, Address: f.Address, CPUs: 4}}
	for range 2 { // a second time with saved data
		if r := apply(t, where, builtins(t), f)["mpi"]; r.Outcome != Applied {
			t.Fatalf("%+v", r)
		}
		want := "btl = ^openib\nosc = ^ucx\n# VIVER begins\norte_default_hostfile = /run/viver-mpi/hosts\n" +
			"btl_tcp_if_include = 10.77.3.4/16\noob_tcp_if_include = 10.77.3.4/16\n# VIVER ends\n"
		if got := read(t, where, "/etc/openmpi/openmpi-mca-params.conf"); got != want {
			t.Errorf("Open MPI's settings are %q, want %q", got, want)
		}
	}
	// This machine is a host also before it has published a key; another one is none.
	f.Members = append(f.Members, MemberFact{Hostname: "keyless", Address: "10.77.0.8"}, MemberFact{Hostname: "z", Address: "10.77.0.9", HostKey: "ssh-ed25519 AAAA"})
	apply(t, where, builtins(t), f)
	if got := read(t, where, "/run/viver-mpi/hosts"); got != "node-1a2b slots=4\nz\n" {
		t.Errorf("the hosts are %q", got)
	}
	// Users of other machines are let in only where the settings say so.
	for _, name := range []string{"/etc/ssh/sshd_config.d/viver-mpi.conf", "/run/viver-mpi/ssh_config", "/run/viver-mpi/shosts.equiv"} {
		if got := read(t, where, name); got != "" {
			t.Errorf("without trust %s holds %q", name, got)
		}
	}
	bundles, err := Configure(builtins(t), map[string]map[string]string{"mpi": {"trust": "members"}})
	must(t, err)
	apply(t, where, bundles, f)
	for name, want := range map[string]string{
		"/etc/ssh/sshd_config.d/viver-mpi.conf": "\nHostbasedAuthentication yes\n",
		"/run/viver-mpi/ssh_config":             "EnableSSHKeysign yes\nHost node-1a2b 10.77.3.4 keyless 10.77.0.8 z 10.77.0.9\n",
		"/run/viver-mpi/shosts.equiv":           "node-1a2b\nkeyless\nz\n",
	} {
		if got := read(t, where, name); !strings.Contains(got, want) {
			t.Errorf("with trust %s holds %q, want %q in it", name, got, want)
		}
	}
	// The setting is taken back.
	apply(t, where, builtins(t), f)
	if got := read(t, where, "/etc/ssh/sshd_config.d/viver-mpi.conf"); got != "" {
		t.Errorf("without trust again sshd is told %q", got)
	}
	if link, err := os.Readlink(filepath.Join(where.Root, "etc/ssh/shosts.equiv")); err != nil || link != "/run/viver-mpi/shosts.equiv" {
		t.Errorf("%q, %v", link, err)
	}
}
