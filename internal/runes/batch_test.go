package runes

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNetnsBatch(t *testing.T) {
	if !inNetwork(t, "slurmctld", "slurmd", "srun", "munged", "ssh", "/usr/sbin/sshd") {
		return
	}
	l := openNetwork(t, "batch", map[string]string{"trust": "members"}, 4, func(root string) {
		withUser(t, root)
		must(t, os.RemoveAll(filepath.Join(root, "etc/munge/munge.key"))) // an image has none
	})
	a, b, c, stranger := l.machines[0], l.machines[1], l.machines[2], l.machines[3]
	stranger.up = false
	a.roles = []string{"controller"}
	l.converge(t)
	for _, m := range l.machines {
		m.startSSHD(t)
	}
	job := func(on *labMachine, want string) {
		t.Helper()
		until(t, func() string {
			out, err := on.run(t, as("anna", "srun", "--immediate=10", "-N", string('0'+rune(len(strings.Fields(want)))), "hostname")...)
			for _, name := range strings.Fields(want) {
				if countLines(out, name) != 1 {
					return out + " " + err.Error()
				}
			}
			return ""
		})
	}
	job(b, "n1 n2 n3")
	key := a.read("/run/viver-batch/secret/munge.key")
	if len(key) != 128 || b.read("/run/viver-batch/secret/munge.key") != key {
		t.Errorf("n1 has a key of %d bytes, n2 another", len(key))
	}

	get := func(on *labMachine, user, command string) string {
		_, err := on.run(t, as(user, "sh", "-c", command)...)
		if err == nil {
			return "it succeeds"
		}
		return err.Error()
	}
	const options = " -o BatchMode=yes -o HostbasedAuthentication=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "
	for what, got := range map[string]string{
		"another user of a member": get(c, "anna", "sftp"+options+"munge@10.9.0.1:munge.key /tmp/key"),
		"another user, as himself": get(c, "anna", "ssh"+options+"10.9.0.1 true"),
		"the same user elsewhere":  get(stranger, "munge", "sftp"+options+"munge@10.9.0.1:munge.key /tmp/key"),
	} {
		if !strings.Contains(got, "Permission denied") {
			t.Errorf("%s gets in: %s", what, got)
		}
	}
	if got := get(c, "munge", "ssh"+options+"10.9.0.1 id"); got == "it succeeds" || strings.Contains(got, "Permission denied") {
		t.Errorf("munge gets a shell: %s", got)
	}

	// The controller dies: another keeps the queue, and its jobs run on those that are left.
	a.die(t)
	b.roles = []string{"controller"}
	l.converge(t)
	job(c, "n2 n3")
}

func TestBatchOnADebianRoot(t *testing.T) {
	files := map[string]string{
		"usr/sbin/slurmctld": "", "usr/sbin/slurmd": "", "usr/sbin/munged": "", "usr/sbin/sshd": "", "usr/bin/sftp": "", "bin/sh": "",
		"etc/ssh/sshd_config.d/": "", "etc/ssh/ssh_config.d/": "",
	}
	where := image(t, files)
	f := testFacts()
	f.Members = []MemberFact{{Hostname: "a", Address: "10.77.0.1", Roles: []string{"batch/controller"}}, {Hostname: f.Hostname, Address: f.Address}}
	w := wantedOf(t, where, "batch", f)
	if w["node"] != "/bin/sh /run/viver-batch/node nobody a" || w["key"] != "/bin/sh /run/viver-batch/key nobody 10.77.0.1" || w["controller"] != "" {
		t.Errorf("services: %q", w)
	}
	for name, want := range map[string]string{
		"/run/slurm/conf/slurm.conf":              "\nSlurmctldHost=a(10.77.0.1)\n",
		"/etc/ssh/sshd_config.d/viver-batch.conf": "",
		"/run/viver-batch/hosts.equiv":            "",
	} {
		if got := read(t, where, name); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	if link, err := os.Readlink(filepath.Join(where.Run, "systemd/system/munge.service")); err != nil || link != "/dev/null" {
		t.Errorf("Debian's munge, which has no key: %q, %v", link, err)
	}
	files["etc/slurm/slurm.conf"] = "ClusterName=ours\n"
	if r := apply(t, image(t, files), builtins(t), f)["batch"]; r.Outcome != Skipped {
		t.Errorf("an image with a Slurm of its own: %+v", r)
	}
}
