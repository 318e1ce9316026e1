package runes

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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

// With a directory that all machines share, a queue outlives the machine that keeps it.
func TestNetnsSharedQueue(t *testing.T) {
	if !inNetwork(t, "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "munged", "ssh", "/usr/sbin/sshd") {
		return
	}
	const shared, state = "/run/shared", "/home/.slurm"
	if out, err := exec.Command("install", "-d", "-o", "slurm", "-g", "slurm", "-m", "700", shared).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l := openNetwork(t, "batch", map[string]string{"trust": "members", "state": state}, 2, func(root string) {
		withUser(t, root)
		must(t, os.RemoveAll(filepath.Join(root, "etc/munge/munge.key")))
		must(t, os.MkdirAll(filepath.Join(root, state), 0o755))
		must(t, unix.Mount(shared, filepath.Join(root, state), "", unix.MS_BIND, ""))
	})
	a, b := l.machines[0], l.machines[1]
	a.roles = []string{"controller"}
	l.converge(t)
	for _, m := range l.machines {
		m.startSSHD(t)
	}
	until(t, func() string {
		out, err := b.run(t, as("anna", "srun", "--immediate=10", "-N", "2", "hostname")...)
		if err != nil {
			return "a job runs on both: " + err.Error() + out
		}
		return ""
	})
	if out, err := b.run(t, as("anna", "sbatch", "--hold", "--nodelist=n2", "--job-name=survivor", "--output=/tmp/survivor", "--wrap=hostname")...); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	until(t, func() string { // slurmctld takes its time
		if saved, err := os.ReadFile(shared + "/job_state"); !bytes.Contains(saved, []byte("survivor")) {
			return fmt.Sprintf("the queue is saved: %v", err)
		}
		return ""
	})
	a.die(t)
	b.roles = []string{"controller"}
	l.converge(t)
	until(t, func() string {
		out, err := b.run(t, as("anna", "squeue", "--noheader", "--format=%j")...)
		if out != "survivor\n" {
			return fmt.Sprintf("the queue holds %q, want the job that waited: %v", out, err)
		}
		return ""
	})
	if out, err := b.run(t, as("anna", "scontrol", "release", "jobname=survivor")...); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	until(t, func() string {
		if got := b.read("/tmp/survivor"); got != "n2\n" {
			return fmt.Sprintf("the job prints n2, not %q", got)
		}
		return ""
	})
}

func TestBatchOnADebianRoot(t *testing.T) {
	files := map[string]string{
		"usr/sbin/slurmctld": "", "usr/sbin/slurmd": "", "usr/sbin/munged": "", "usr/sbin/sshd": "", "usr/bin/sftp": "", "usr/bin/srun": "", "bin/sh": "",
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
