package shell

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"viver.lan/internal/control"
)

// fakeSSH does for each address what may happen to one, and runs what it is given in a
// process group of its own, as sshd does.
const fakeSSH = `#!/bin/sh
printf '%s\n' "$@" '' >>"$0.asked"
for word; do address=$command; command=$word; done
case $address in
10.0.0.2) echo "ssh: connect to host $address port 22: Connection refused" >&2; exit 255 ;;
10.0.0.3) exec sleep 1000 ;;
10.0.0.4) setsid -w /bin/sh -c "$command"; exit 255 ;;
10.0.0.5) echo "root@$address: Permission denied (publickey)." >&2; exit 255 ;;
10.0.0.6) echo "This account is not available."; exit 1 ;;
*) exec setsid -w /bin/sh -c "$command" ;;
esac
`

// fake is an SSH that runs fakeSSH.
func fake(t *testing.T) SSH {
	t.Helper()
	program := filepath.Join(t.TempDir(), "ssh")
	if err := os.WriteFile(program, []byte(fakeSSH), 0o755); err != nil {
		t.Fatal(err)
	}
	return SSH{Program: program, KnownHosts: "/known", User: "root"}
}

// notebook is an observer that writes down what it is told.
type notebook struct {
	lines, ended, dead []string
	busy               atomic.Int32 // calls at once
	onLine             func(line string)
}

func (n *notebook) once(t func()) {
	if n.busy.Add(1) > 1 {
		n.lines = append(n.lines, "two calls at once")
	}
	t()
	n.busy.Add(-1)
}

func (n *notebook) Line(m control.Member, stderr bool, line []byte) {
	n.once(func() {
		n.lines = append(n.lines, fmt.Sprintf("%s %v %s", Label(m), stderr, line))
		if n.onLine != nil {
			n.onLine(string(line))
		}
	})
}
func (n *notebook) Dead(m control.Member) { n.once(func() { n.dead = append(n.dead, Label(m)) }) }
func (n *notebook) Ended(r Result)        { n.once(func() { n.ended = append(n.ended, Label(r.Member)) }) }

func TestRun(t *testing.T) {
	members := []control.Member{machine(1, "a"), machine(2, "b"), machine(5, "e"), machine(6, "f"), machine(7, "g")}
	for _, test := range []struct {
		command string
		want    []string // results
		lines   []string // of a
	}{
		{"echo out; echo err >&2; printf rest", []string{"ended 0 ", "not_run 0 ssh: connect to host 10.0.0.2 port 22: Connection refused",
			"not_run 0 root@10.0.0.5: Permission denied (publickey).", "not_run 0 the user's shell there ended with exit status 1 before it began", "ended 0 "}, []string{"a false out", "a false rest", "a true err"}},
		{"exit 255", []string{"ended 255 ", "", "", "", "ended 255 "}, nil},
		{"kill -9 $$", []string{"ended 137 ", "", "", "", "ended 137 "}, nil},
		{"cat; no-such-program 2>/dev/null", []string{"ended 127 ", "", "", "", "ended 127 "}, nil},
		{"kill -9 0", []string{"lost 0 ", "", "", "", "lost 0 "}, nil}, // and with it the connection
	} {
		ssh, log := fake(t), &notebook{}
		if test.command == "kill -9 0" {
			members[0].Address, members[4].Address = machine(4, "").Address, machine(4, "").Address
		}
		results := Command{SSH: ssh, Text: test.command, Jobs: 2}.Run(t.Context(), members, nil, log)
		for i, r := range results {
			if got := fmt.Sprintf("%s %d %s", r.Outcome, r.Code, r.Reason); !strings.HasPrefix(got, test.want[i]) {
				t.Errorf("%s: %s: %q, want %q", test.command, Label(r.Member), got, test.want[i])
			}
		}
		lines := slices.DeleteFunc(log.lines, func(l string) bool { return !strings.HasPrefix(l, "a ") })
		if slices.Sort(lines); test.want[0] != "lost 0 " && !slices.Equal(lines, test.lines) {
			t.Errorf("%s: a wrote %q, want %q", test.command, lines, test.lines)
		}
		if slices.Sort(log.ended); !slices.Equal(log.ended, []string{"a", "b", "e", "f", "g"}) {
			t.Errorf("%s: %q have ended", test.command, log.ended)
		}
		asked, err := os.ReadFile(ssh.Program + ".asked")
		if n := bytes.Count(asked, []byte("\nStrictHostKeyChecking=yes\n-o\nGlobalKnownHostsFile=/known\n")); n != len(members) || err != nil {
			t.Errorf("ssh is asked to check %d host keys, %v: %s", n, err, asked)
		}
	}
}

// gone waits until a process is no more.
func gone(t *testing.T, pid string) {
	t.Helper()
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); syscall.Kill(n, 0) == nil && !zombie(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %s goes on", pid)
		}
	}
}

// zombie reports whether a process has ended, and nobody has waited for it yet.
func zombie(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && bytes.Contains(stat, []byte(") Z "))
}

// What ends a command ends all that it has started, also what does not want to end.
func TestCommandsAreEnded(t *testing.T) {
	const polite, stubborn = `sleep 1000 & echo $!; wait`, `trap "" TERM; sleep 1000 & echo $!; while :; do sleep 1; done`
	for _, test := range []struct {
		name, command string
		timeout       time.Duration
		want          Outcome
		reason        string
	}{
		{"interrupted", polite, 0, Interrupted, "it was ended"},
		{"timeout", polite, 3 * time.Second, TimedOut, "it was ended"},
		{"stubborn", stubborn, 0, Interrupted, "the machine did not say"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var pid string
			log := &notebook{onLine: func(line string) {
				if pid == "" {
					pid = line
				}
				if test.timeout == 0 {
					cancel()
				}
			}}
			c := Command{SSH: fake(t), Text: test.command, Jobs: 1, Timeout: test.timeout}
			r := c.Run(ctx, []control.Member{machine(1, "a")}, nil, log)[0]
			if pid == "" {
				t.Fatalf("the command did not begin within %s: %+v", test.timeout, r)
			}
			gone(t, pid)
			if r.Outcome != test.want || !strings.HasPrefix(r.Reason, test.reason) {
				t.Errorf("%s, %s, want %s, %s", r.Outcome, r.Reason, test.want, test.reason)
			}
		})
	}
}

// One that does not connect is not waited for, and what has not begun does not.
func TestNothingBeginsAfterAnInterrupt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	log, ssh := &notebook{}, fake(t)
	members := []control.Member{machine(3, "a"), machine(1, "b")}
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(ssh.Program + ".asked"); err == nil {
				cancel()
			}
			time.Sleep(time.Millisecond)
		}
	}()
	for _, r := range (Command{SSH: ssh, Text: "echo it runs", Jobs: 1}).Run(ctx, members, nil, log) {
		if r.Outcome != Interrupted || r.Reason != "it had not begun" {
			t.Errorf("%+v", r)
		}
	}
	if len(log.lines) > 0 {
		t.Errorf("%q", log.lines)
	}
}

// Who dies meanwhile is said once; of others, and of those that are done, nothing is.
func TestDeathsAreSaid(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	members := []control.Member{machine(1, "a"), machine(3, "b")}
	statuses, log := make(chan *control.Status), &notebook{}
	go func() {
		for range 2 {
			statuses <- &control.Status{Members: []control.Member{machine(1, "a"), machine(3, "b", in(control.Dead)), machine(9, "other", in(control.Dead))}}
		}
		close(statuses)
		cancel()
	}()
	Command{SSH: fake(t), Text: "sleep 1000", Jobs: 2}.Run(ctx, members, statuses, log)
	if !slices.Equal(log.dead, []string{"b"}) {
		t.Errorf("dead are %q", log.dead)
	}
}

func TestSSHIsMissing(t *testing.T) {
	r := Command{SSH: SSH{Program: "/none"}, Text: "x", Jobs: 1}.Run(t.Context(), []control.Member{machine(1, "a")}, nil, &notebook{})[0]
	if r.Outcome != NotRun || !strings.Contains(r.Reason, "no such file") {
		t.Errorf("%+v", r)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := Find(); err == nil || !strings.Contains(err.Error(), "openssh-client") {
		t.Errorf("%v", err)
	}
}

// A node is asked through ssh, until it has answered enough or says something else.
func TestVia(t *testing.T) {
	for _, test := range []struct{ answer, want string }{
		{`printf '%s\n' '{"network":"one"}' '{"network":"two"}'; exec sleep 1000`, "ask 10.0.0.1: enough"},
		{`echo '{"network":"one"}'; exit 255`, "ask 10.0.0.1: ssh has ended\nexit status 255"},
		{`printf '{"netw'; exit 0`, "ask 10.0.0.1: ssh has ended"},
		{`echo Welcome`, "ask 10.0.0.1: its answer is no status of a node"},
	} {
		program := filepath.Join(t.TempDir(), "ssh")
		if err := os.WriteFile(program, []byte("#!/bin/sh\necho \"$@\" >$0.asked\n"+test.answer+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		err := Via{Program: program, Node: "10.0.0.1", Stderr: io.Discard}.Watch(t.Context(), func(s *control.Status) error {
			if s.Network == "two" {
				return fmt.Errorf("enough")
			}
			return nil
		})
		if err == nil || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", test.answer, err, test.want)
		}
		if asked, _ := os.ReadFile(program + ".asked"); !strings.HasSuffix(string(asked), "-- root@10.0.0.1 viver status --watch -o json\n") {
			t.Errorf("ssh is asked %s", asked)
		}
	}
}

// FuzzStatuses: what a node sends is a status or an error.
func FuzzStatuses(f *testing.F) {
	f.Add([]byte(`{"members":[{"hostname":"a","mac":"52:54:00:00:00:01","state":"alive"}]}`))
	f.Add([]byte("{}\n[]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		n := 0
		err := readStatuses(bytes.NewReader(data), func(s *control.Status) error {
			n++
			_, _, _ = Choose(s.Members, Choice{All: true})
			KnownHosts(s.Members)
			return nil
		})
		if err == nil || n > len(data) {
			t.Errorf("%d statuses, %v", n, err)
		}
	})
}
