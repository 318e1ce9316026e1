package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/control"
	"viver.lan/internal/ether"
	"viver.lan/internal/identity"
	"viver.lan/internal/operator"
	"viver.lan/internal/roles"
	"viver.lan/internal/sshkey"
)

// lab is a node whose network has these members.
type lab struct {
	listener
	members []control.Member
}

func (l *lab) MemberStatus() control.Status { return l.Status() }

func (l *lab) Status() control.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return control.Status{Network: "lab", Members: slices.Clone(l.members)}
}

// turn gives a machine another state.
func (l *lab) turn(i int, state control.MemberState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.members[i].State = state
	l.Notify()
}

// newLab has machines called a, b, c and so on, 10.0.0.1 to 10.0.0.N.
func newLab(n byte) *lab {
	l := &lab{listener: listener{table: &operator.Table{}}}
	for i := range n {
		l.members = append(l.members, control.Member{ID: identity.Public{i}.ID(), Hostname: string(rune('a' + i)), MAC: ether.MAC{0x52, 5: i},
			Address: netip.AddrFrom4([4]byte{10, 0, 0, i + 1}), HTTPPort: control.StandByPort, State: control.Alive, HostKey: sshkey.Key{i + 1}.String()})
	}
	return l
}

// installSSH puts a program called ssh in front of all others.
func installSSH(t *testing.T, text string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "ssh"), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
}

// On 10.0.0.2 nobody listens, 10.0.0.3 refuses.
const sshOfALab = `for word; do address=$command; command=$word; done
case $address in
10.0.0.2) echo "ssh: connect to host $address port 22: No route to host" >&2; exit 255 ;;
10.0.0.3) echo "root@$address: Permission denied (publickey)." >&2; exit 255 ;;
esac
exec env ADDRESS=$address setsid -w /bin/sh -c "$command"
`

// operate runs a command line with that user's directory.
func operate(t *testing.T, dir string, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), environment{args: args, stdout: &o, stderr: &e, configDir: func() (string, error) { return dir, nil },
		become: func(program string, args []string) error {
			o.WriteString(filepath.Base(program) + " as " + strings.Join(args, " ") + "\n")
			return nil
		}})
	return code, o.String(), e.String()
}

func TestRunOnManyMachines(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "/none")
	installSSH(t, sshOfALab)
	good, bad := newLab(1), newLab(6)
	bad.turn(4, control.Dead)
	worker := []roles.Name{{Rune: "compile", Role: "worker"}}
	bad.members[3].Roles, bad.members[4].Roles, bad.members[5].Roles = worker, worker, worker
	healthy, ill := serve(t, good), serve(t, bad)
	for _, test := range []struct {
		line      string
		socket    string
		code      int
		out, errs []string // lines in it, in any order
	}{
		{"--all echo hello", healthy, exitOK, []string{"a: hello"}, nil},
		{"a -- echo -n hello", healthy, exitOK, []string{"a: hello"}, nil},
		{"--all -- sh -c 'echo $0'", healthy, exitOK, []string{"a: sh"}, nil},
		{"--all echo $ADDRESS", ill, exitIncomplete, []string{"a: 10.0.0.1", "d: 10.0.0.4", "f: 10.0.0.6"}, []string{
			"b: ssh: connect to host 10.0.0.2 port 22: No route to host",
			"viver: 3 of 6 machines ended it with 0; not these:",
			"  b: not run: ssh: connect to host 10.0.0.2 port 22: No route to host",
			"  c: not run: root@10.0.0.3: Permission denied (publickey).",
			"  e: not run: it is dead: no other node has an answer from it",
			"ssh.authorized-keys of the settings names the keys that may log in as root; ssh-add -l shows those that you have"}},
		{"--all [ $ADDRESS = 10.0.0.1 ]", ill, exitFailed, nil, []string{"viver: 1 of 6 machines ended it with 0; not these:", "  d: exit status 1", "  f: exit status 1"}},
		{"--timeout 1s a -- sleep 1000", healthy, exitFailed, nil, []string{"  a: timed out: it was ended"}},
		{"--group a d -- echo one; echo two >&2; echo $ADDRESS", ill, exitOK, []string{"== a: exit status 0", "one", "two", "10.0.0.1", "== d: exit status 0", "10.0.0.4"}, nil},
		{"--group --all head -c 3000000 /dev/zero", healthy, exitOK, []string{"== a: exit status 0", "bytes more, which are shown without --group"}, nil},
		{"a nobody -- true", ill, exitFailed, nil, []string{`viver: there is no machine "nobody" on the network; viver node list shows them`}},
		{"--role compile/worker echo $ADDRESS", ill, exitOK, []string{"d: 10.0.0.4", "f: 10.0.0.6"}, nil}, // e is dead
		{"a compile/worker -- echo $ADDRESS", ill, exitOK, []string{"a: 10.0.0.1", "d: 10.0.0.4", "f: 10.0.0.6"}, nil},
		{"--role compile/scheduler true", ill, exitFailed, nil, []string{"viver: no machine on the network holds the role compile/scheduler"}},
		{"--role compile true", ill, exitUsage, nil, []string{`viver: "compile" is no role`}},
		{"--role compile/worker --all true", ill, exitUsage, nil, []string{"viver: if any flags in the group [all role]"}},
		{"--all", healthy, exitUsage, nil, []string{"viver: no command is given"}},
		{"a uptime", healthy, exitUsage, nil, []string{"viver: on which machines? want --all COMMAND, --role RUNE/ROLE COMMAND, or NODE... -- COMMAND"}},
		{"-- uptime", healthy, exitUsage, nil, []string{"viver: on which machines?"}},
		{"--jobs 0 --all true", healthy, exitUsage, nil, []string{"viver: --jobs 0: want 1 at least"}},
		{"--timeout -1s --all true", healthy, exitUsage, nil, []string{"viver: --timeout -1s: want a time"}},
		{"-o xml --all true", healthy, exitUsage, nil, []string{`viver: output form "xml"`}},
		{"--via x --all true", healthy, exitUsage, nil, []string{"viver: if any flags in the group [via socket]"}},
	} {
		code, out, errs := operate(t, t.TempDir(), append([]string{"run", "--socket", test.socket}, words(test.line)...)...)
		for name, want := range map[string][]string{out: test.out, errs: test.errs} {
			lines := strings.Split(name, "\n")
			for _, w := range want {
				if !slices.ContainsFunc(lines, func(l string) bool { return strings.Contains(l, w) }) {
					t.Errorf("viver run %s: no line %q in\n%.2000s", test.line, w, name)
				}
			}
		}
		if code != test.code || test.code == exitOK && errs != "" && !strings.Contains(errs, "two") {
			t.Errorf("viver run %s: exit code %d, want %d; it said %s", test.line, code, test.code, errs)
		}
	}
}

// words cuts a line at spaces.
func words(line string) []string { return strings.Fields(line) }

func TestRunInJSON(t *testing.T) {
	installSSH(t, sshOfALab)
	bad := newLab(3)
	bad.turn(2, control.Dead)
	code, out, _ := operate(t, t.TempDir(), "run", "--socket", serve(t, bad), "--all", "-o", "json", "echo out; echo err >&2; exit 4")
	got := map[string]machineResult{}
	for line := range strings.Lines(out) {
		var r machineResult
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		got[r.Hostname] = r
	}
	a, b, c := got["a"], got["b"], got["c"]
	if code != exitFailed || a.Outcome != "ended" || a.Code == nil || *a.Code != 4 || a.Stdout != "out\n" || a.Stderr != "err\n" || a.Address != bad.members[0].Address {
		t.Errorf("exit code %d, %+v", code, a)
	}
	if b.Outcome != "not_run" || b.Code != nil || !strings.Contains(b.Reason, "No route") || c.Outcome != "not_run" || !strings.Contains(c.Reason, "dead") {
		t.Errorf("%+v\n%+v", b, c)
	}
}

// A disk that is full does not look like a command that prints nothing.
func TestRunNoticesThatItsOutputIsLost(t *testing.T) {
	installSSH(t, sshOfALab)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	for _, form := range []string{"text", "json"} {
		var said bytes.Buffer
		code := run(t.Context(), environment{args: []string{"run", "--socket", serve(t, newLab(1)), "-o", form, "--all", "echo", "x"}, stdout: full, stderr: &said,
			configDir: func() (string, error) { return t.TempDir(), nil }})
		if code != exitFailed || !strings.Contains(said.String(), "no space left") {
			t.Errorf("%s: exit code %d, %s", form, code, &said)
		}
	}
}

func TestSSH(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "/none")
	ill := newLab(3)
	ill.members[1].State, ill.members[2].NameState = control.Dead, control.Disputed
	page, server := roles.Name{Rune: "web", Role: "page"}, roles.Name{Rune: "nfs", Role: "server"}
	ill.members[0].Roles, ill.members[1].Roles, ill.members[2].Roles = []roles.Name{server, page}, []roles.Name{server}, []roles.Name{page}
	socket := serve(t, ill)
	for _, test := range []struct {
		args string
		code int
		said string
	}{
		{"a", exitOK, "-l root 10.0.0.1\n"},
		{"a -A uptime -p", exitOK, "-l root 10.0.0.1 -A uptime -p\n"},
		{"alice@10.0.0.1", exitOK, "-l alice 10.0.0.1\n"},
		{"-l bob 52:00:00:00:00:00 -- x", exitOK, "-l bob 10.0.0.1 -- x\n"},
		{"b", exitFailed, "viver: b cannot be reached: it is dead: no other node has an answer from it\n"},
		{"c", exitFailed, "viver: c cannot be reached: its name or address is disputed"},
		{"d", exitFailed, `viver: there is no machine "d"`},
		{"nfs/server uptime", exitOK, "-l root 10.0.0.1 uptime\n"},
		{"web/page", exitFailed, "viver: web/page is a role that 2 machines hold: name one of them"},
		{"", exitUsage, "viver: requires at least 1 arg"},
	} {
		dir := t.TempDir()
		code, out, errs := operate(t, dir, append([]string{"ssh", "--socket", socket}, words(test.args)...)...)
		if code != test.code || !strings.Contains(out+errs, test.said) {
			t.Errorf("viver ssh %s: exit code %d, want %d; it said %q, want %q", test.args, code, test.code, out+errs, test.said)
		}
		if code != exitOK {
			continue
		}
		file := filepath.Join(dir, "ssh_known_hosts-lab")
		if want := "ssh as ssh -o StrictHostKeyChecking=yes -o GlobalKnownHostsFile=" + file + " "; !strings.HasPrefix(out, want) {
			t.Errorf("viver ssh %s becomes %q, want %q", test.args, out, want)
		}
		if keys, err := os.ReadFile(file); err != nil || string(keys) != "a,10.0.0.1 "+ill.members[0].HostKey+"\n" {
			t.Errorf("it knows the keys %q, %v", keys, err)
		}
	}
}

// A computer that is no node says so, and asks one.
func TestSSHFromElsewhere(t *testing.T) {
	status, err := json.Marshal(newLab(2).Status())
	if err != nil {
		t.Fatal(err)
	}
	installSSH(t, "echo \"$@\" >>$0.asked\necho '"+string(status)+"'\nexec sleep 1000\n")
	if code, out, errs := operate(t, t.TempDir(), "ssh", "--via", "10.0.0.9", "b", "date"); code != exitOK || !strings.HasSuffix(out, "-l root 10.0.0.2 date\n") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	for line, want := range map[string]string{
		"--socket /none/s a": "did not boot with VIVER: ask /none/s",
		"--via 10.0.0.9 c":   `there is no machine "c"`,
	} {
		if code, _, errs := operate(t, t.TempDir(), append([]string{"ssh"}, words(line)...)...); code != exitFailed || !strings.Contains(errs, want) {
			t.Errorf("viver ssh %s: exit code %d, %s", line, code, errs)
		}
	}
	if _, _, errs := operate(t, t.TempDir(), "ssh", "--socket", "/none/s", "a"); !strings.Contains(errs, "--via NODE asks a node through ssh") {
		t.Errorf("no advice in %q", errs)
	}
	installSSH(t, "echo 'ssh: Could not resolve hostname x' >&2\nexit 255\n")
	if code, _, errs := operate(t, t.TempDir(), "run", "--via", "x", "--all", "true"); code != exitFailed || !strings.Contains(errs, "Could not resolve") || !strings.Contains(errs, "ask x: ssh has ended") {
		t.Errorf("exit code %d, %s", code, errs)
	}
	t.Setenv("PATH", t.TempDir())
	if code, _, errs := operate(t, t.TempDir(), "run", "--all", "true"); code != exitFailed || !strings.Contains(errs, "openssh-client") {
		t.Errorf("exit code %d, %s", code, errs)
	}
}

// Where no key can be had, that is said before ssh says "Permission denied".
func TestAMachineWithoutAKeySaysSo(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("SSH_AUTH_SOCK", "")
	socket := serve(t, newLab(3))
	said := func() string {
		_, _, errs := operate(t, t.TempDir(), "ssh", "--socket", socket, "a")
		return errs
	}
	if errs := said(); !strings.Contains(errs, "log in to it with ssh -A") {
		t.Errorf("it says %q", errs)
	}
	installSSH(t, sshOfALab)
	if _, _, errs := operate(t, t.TempDir(), "run", "--socket", socket, "c", "--", "true"); !strings.Contains(errs, keylessNode) {
		t.Errorf("it says %q", errs)
	}
	if err := errors.Join(os.Mkdir(filepath.Join(home, ".ssh"), 0o700), os.WriteFile(filepath.Join(home, ".ssh", "id_ed25519"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if errs := said(); errs != "" {
		t.Errorf("with a key it says %q", errs)
	}
}
