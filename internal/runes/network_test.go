package runes

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/ether"
	"viver.lan/internal/netbed"
	"viver.lan/internal/netbed/netbedtest"
	"viver.lan/internal/sshkey"
)

// network is a rune on a few machines with this computer's programs: each a network
// namespace of its own and a root with an /etc, /run, /var and /srv of its own. It does what
// @vrune does with files and services, no more; who holds which role is said by the test.
type network struct {
	bed      *netbed.Bed
	bundle   Bundle
	machines []*labMachine
	left     []string // IDs of those that left on purpose
}

type labMachine struct {
	*netbed.Node
	name, root string
	key        sshkey.Key // of its SSH host
	up         bool
	roles      []string
	facts      Facts
	system     *System
	services   map[string]*labService
}

type labService struct {
	Service
	cmd *exec.Cmd
}

// openNetwork lays a rune on machines called n1 and so on. The caller is in namespaces
// with users.
func openNetwork(t *testing.T, name string, settings map[string]string, n int, prepare func(root string)) *network {
	t.Helper()
	l := &network{}
	bundles, err := Configure(builtins(t), map[string]map[string]string{name: settings})
	must(t, err)
	l.bundle = bundles[slices.IndexFunc(bundles, func(b Bundle) bool { return b.Name == name })]
	l.bed, err = netbed.New(netbed.Config{Nodes: n, MTU: 1500})
	must(t, err)
	t.Cleanup(func() { l.bed.Close() })
	for i := range n {
		m := &labMachine{Node: l.bed.Node(i), name: fmt.Sprintf("n%d", i+1), up: true, services: make(map[string]*labService)}
		m.root = filepath.Join("/run/machines", m.name)
		m.makeRoot(t)
		if prepare != nil {
			prepare(m.root)
		}
		m.facts = testFacts()
		m.facts.Hostname, m.facts.Address, m.facts.MAC, m.facts.Netmask = m.name, m.Addr().String(), ether.MAC{2, 0, 0, 0, 0, byte(i)}, "255.255.0.0"
		l.machines = append(l.machines, m)
	}
	for _, m := range l.machines {
		m.facts.Members = l.members()
		r := Apply(t.Context(), Target{Root: m.root, Run: filepath.Join(m.root, "run")}, []Bundle{l.bundle}, m.facts, slog.New(slog.NewTextHandler(t.Output(), nil)))
		if len(r) != 1 || r[0].Outcome != Applied {
			t.Fatalf("%s: %+v", m.name, r)
		}
		m.system, err = OpenSystem(Target{Root: m.root})
		must(t, err)
		t.Cleanup(func() { m.system.Close() })
	}
	return l
}

// makeRoot makes the machine's root, and in it the host key that it has.
func (m *labMachine) makeRoot(t *testing.T) {
	t.Helper()
	for _, dir := range []string{"run/sshd", "run/viver", "run/lock", "var/log/journal", "var/lib", "var/spool", "srv", "tmp", "usr", "dev", "proc", "sys", "root"} {
		must(t, os.MkdirAll(filepath.Join(m.root, dir), 0o755))
	}
	must(t, os.Chmod(filepath.Join(m.root, "tmp"), 0o1777))
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		must(t, os.Symlink("usr/"+dir, filepath.Join(m.root, dir)))
	}
	if out, err := exec.Command("cp", "-a", "/etc", m.root).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, dir := range []string{"usr", "dev", "proc", "sys"} {
		must(t, unix.Mount("/"+dir, filepath.Join(m.root, dir), "", unix.MS_BIND|unix.MS_REC, ""))
	}
	keys, err := filepath.Glob(filepath.Join(m.root, "etc/ssh/ssh_host_*"))
	must(t, err)
	for _, name := range keys {
		must(t, os.Remove(name))
	}
	must(t, os.Symlink("/run/viver/ssh_known_hosts", filepath.Join(m.root, "etc/ssh/ssh_known_hosts2"))) // as the rune knownhosts does
	private, public, err := sshkey.Generate(m.name)
	must(t, err)
	m.write(t, "/etc/ssh/ssh_host_ed25519_key", private, 0o600)
	m.write(t, "/etc/ssh/ssh_host_ed25519_key.pub", public+"\n", 0o644)
	m.key, err = sshkey.Parse([]byte(public))
	must(t, err)
}

func (m *labMachine) write(t *testing.T, name, text string, mode os.FileMode) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(filepath.Join(m.root, name)), 0o755))
	must(t, os.WriteFile(filepath.Join(m.root, name), []byte(text), mode))
	must(t, os.Chmod(filepath.Join(m.root, name), mode))
}

func (m *labMachine) read(name string) string {
	data, _ := os.ReadFile(filepath.Join(m.root, name))
	return string(data)
}

// idOf is a node's ID in these tests.
func idOf(name string) string { return "id-of-" + name }

// members are the machines that are up.
func (l *network) members() []MemberFact {
	var list []MemberFact
	for _, m := range l.machines {
		if !m.up {
			continue
		}
		f := MemberFact{ID: idOf(m.name), Hostname: m.name, Address: m.Addr().String(), MAC: m.facts.MAC, HostKey: m.key.String(), CPUs: 2}
		for _, role := range m.roles {
			f.Roles = append(f.Roles, l.bundle.Name+"/"+role)
		}
		list = append(list, f)
	}
	return list
}

// converge gives each machine that is up what the rune wants of it now. It returns when
// the programs have been started, not when they do their work.
func (l *network) converge(t *testing.T) {
	t.Helper()
	var hosts []sshkey.Host
	names := "127.0.0.1 localhost\n"
	for _, m := range l.machines {
		if m.up {
			hosts = append(hosts, sshkey.Host{Name: m.name, Address: m.Addr(), Key: m.key})
			names += m.Addr().String() + " " + m.name + "\n"
		}
	}
	for _, m := range l.machines {
		if !m.up {
			continue
		}
		m.write(t, "/run/viver/ssh_known_hosts", string(sshkey.KnownHosts(hosts)), 0o644)
		m.write(t, "/etc/hosts", names, 0o644)
		m.facts.Members, m.facts.Left, m.facts.Roles = l.members(), l.left, nil
		for _, role := range m.roles {
			m.facts.Roles = append(m.facts.Roles, l.bundle.Name+"/"+role)
		}
		w := m.system.Wanted(l.bundle, m.facts)
		if w.Skipped != "" {
			t.Fatalf("%s: skipped: %s", m.name, w.Skipped)
		}
		for _, f := range w.Files {
			must(t, m.system.Lay(l.bundle, f))
		}
		m.serve(t, w.Services)
	}
}

func (m *labMachine) serve(t *testing.T, wanted []Service) {
	t.Helper()
	for name, running := range m.services {
		if !slices.ContainsFunc(wanted, func(s Service) bool { return s.Name == name && slices.Equal(s.Start, running.Start) }) {
			m.stop(name)
		}
	}
	for _, s := range wanted {
		must(t, s.Err)
		if m.services[s.Name] != nil {
			continue
		}
		args := s.Start
		if s.User != "" {
			args = append([]string{"setpriv", "--reuid=" + s.User, "--regid=" + s.User, "--init-groups"}, args...)
		}
		m.services[s.Name] = &labService{s, m.start(t, args...)}
	}
}

// stop ends a service as systemd would: all of it.
func (m *labMachine) stop(name string) {
	cmd := m.services[name].cmd
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	_ = cmd.Wait()
	delete(m.services, name)
}

// die ends a machine as a pulled plug does.
func (m *labMachine) die(t *testing.T) {
	t.Helper()
	must(t, m.SetLink(false))
	for name := range m.services {
		m.stop(name)
	}
	m.up, m.roles = false, nil
}

func (m *labMachine) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	return m.Command(t.Context(), "unshare", append([]string{"--uts", "--root=" + m.root, "--wd=/", "/bin/sh", "-c", `hostname "$0"; exec "$@"`, m.name}, args...)...)
}

// start starts a program that ends with the bed, at the latest.
func (m *labMachine) start(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	cmd := m.command(t, args...)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.WaitDelay = time.Second
	must(t, cmd.Start())
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); _ = cmd.Wait() })
	return cmd
}

// run returns what a program prints and how it ends.
func (m *labMachine) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := m.command(t, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = errors.New(err.Error() + ": " + stderr.String())
	}
	return string(out), err
}

// as is a command line of a user other than root.
func as(user string, args ...string) []string {
	return append([]string{"setpriv", "--reuid=" + user, "--regid=" + user, "--init-groups", "env", "HOME=/srv"}, args...)
}

// until waits for something that programs do by themselves; what says in the end how far
// they came.
func until(t *testing.T, what func() string) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		missing := what()
		if missing == "" {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("never: %s", missing)
		}
	}
}

// inNetwork reports whether the calling test is where openNetwork works.
func inNetwork(t *testing.T, programs ...string) bool {
	t.Helper()
	netbedtest.Need(t, append(programs, "setpriv", "unshare")...)
	return netbedtest.EnterWithUsers(t)
}

// withUser adds a user called anna to a root.
func withUser(t *testing.T, root string) {
	t.Helper()
	for name, line := range map[string]string{"passwd": "anna:x:4321:4321::/srv:/bin/sh", "shadow": "anna:*:19000::::::", "group": "anna:x:4321:"} {
		f, err := os.OpenFile(filepath.Join(root, "etc", name), os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteString(line + "\n")
		must(t, errors.Join(err, f.Close()))
	}
	must(t, os.Chown(filepath.Join(root, "srv"), 4321, 4321))
}

// countLines counts the lines that hold a text.
func countLines(text, part string) (n int) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}
