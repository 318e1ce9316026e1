package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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

	"viver.lan/internal/control"
	"viver.lan/internal/netbed"
	"viver.lan/internal/netbed/netbedtest"
	"viver.lan/internal/shell"
	"viver.lan/internal/sshkey"
)

// sshLab is a network of machines with OpenSSH's server, and the viver of the first.
type sshLab struct {
	*lab
	bed    *netbed.Bed
	agent  string // socket of an ssh-agent that has the operator's key
	served chan error
}

// openSSHLab makes machines a, b, c and so on. a has a block daemon, the others servers.
func openSSHLab(t *testing.T, home string, n int) *sshLab {
	t.Helper()
	l := &sshLab{lab: newLab(byte(n)), served: make(chan error, 1)}
	for _, err := range []error{os.Mkdir(control.RunDir, 0o755), os.Mkdir("/run/bin", 0o755), os.Mkdir("/run/sshd", 0o755),
		unix.Mount("tmpfs", "/etc/ssh", "tmpfs", 0, "mode=0755")} { // what this computer's ssh knows
		if err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-tags", "node", "-o", "/run/bin/viver", ".")
	build.Env = append(os.Environ(), "HOME="+home)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	var err error
	if l.bed, err = netbed.New(netbed.Config{Nodes: n, MTU: 1500}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.bed.Close() })
	l.startAgent(t)
	for i := range n {
		l.startSSHD(t, i)
	}
	l.publish(t, l.members)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { l.served <- control.Serve(ctx, control.Socket, -1, l, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() { cancel(); <-l.served })
	return l
}

// startAgent makes the operator's key, and an agent that has it.
func (l *sshLab) startAgent(t *testing.T) {
	t.Helper()
	private, public, err := sshkey.Generate("operator")
	if err := errors.Join(err, os.WriteFile("/run/key", []byte(private), 0o600), os.WriteFile("/run/authorized_keys", []byte(public+"\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	l.agent = "/run/agent"
	l.start(t, 0, "ssh-agent", "-D", "-a", l.agent)
	l.until(t, "the agent has the key", func() bool { return l.command(t.Context(), "ssh-add", "-q", "/run/key").Run() == nil })
}

// startSSHD starts a server on machine i.
func (l *sshLab) startSSHD(t *testing.T, i int) {
	t.Helper()
	m := &l.members[i]
	private, public, err := sshkey.Generate(m.Hostname)
	file := "/run/sshd/" + m.Hostname
	config := fmt.Sprintf("HostKey %s.key\nListenAddress %s\nAuthorizedKeysFile /run/authorized_keys\nSetEnv PATH=/run/bin:/usr/bin:/bin\nPidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n",
		file, l.bed.Node(i).Addr())
	if err := errors.Join(err, os.WriteFile(file+".key", []byte(private), 0o600), os.WriteFile(file, []byte(config), 0o644)); err != nil {
		t.Fatal(err)
	}
	m.Address = l.bed.Node(i).Addr()
	m.HostKey, _, _ = strings.Cut(public, " "+m.Hostname)
	l.start(t, i, "/usr/sbin/sshd", "-D", "-e", "-f", file)
	l.until(t, m.Hostname+" listens", func() bool {
		conn, err := l.bed.Node(i).Dial(t.Context(), "tcp", l.bed.Node(i).AddrPort(22).String())
		return err == nil && conn.Close() == nil
	})
}

// publish writes the host keys as the block daemon does.
func (l *sshLab) publish(t *testing.T, members []control.Member) {
	t.Helper()
	if err := os.WriteFile(control.KnownHosts, shell.KnownHosts(members), 0o644); err != nil {
		t.Fatal(err)
	}
}

// start starts a program on machine i, which ends with the bed.
func (l *sshLab) start(t *testing.T, i int, name string, args ...string) {
	t.Helper()
	cmd := l.bed.Node(i).Command(t.Context(), name, args...)
	cmd.Stderr = t.Output()
	cmd.WaitDelay = time.Second // a server's child of a dead machine has its output, too
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.bed.Close(); _ = cmd.Wait() })
}

func (l *sshLab) until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// command is a program on the first machine, with the operator's agent.
func (l *sshLab) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := l.bed.Node(0).Command(ctx, name, args...)
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+l.agent, "XDG_CONFIG_HOME=/run/config")
	return cmd
}

// viver runs a command line to its end and checks what it says, in lines that begin so.
func (l *sshLab) viver(t *testing.T, code int, args []string, want ...string) {
	t.Helper()
	cmd := l.command(t.Context(), "/run/bin/viver", args...)
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code {
		t.Errorf("viver %q: %v, want exit code %d", args, err, code)
	}
	said := strings.Split(string(out), "\n")
	for _, w := range want {
		if !slices.ContainsFunc(said, func(line string) bool { return strings.HasPrefix(line, w) }) {
			t.Errorf("viver %q: no line %q in\n%s", args, w, out)
		}
	}
}

// begin starts a command that writes a number of a process on each of n machines, and
// returns these, and what viver says meanwhile.
func (l *sshLab) begin(t *testing.T, n int, args ...string) (cmd *exec.Cmd, pids []string, said *bytes.Buffer) {
	t.Helper()
	cmd, said = l.command(t.Context(), "/run/bin/viver", args...), new(bytes.Buffer)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = io.MultiWriter(said, t.Output())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); len(pids) < n && lines.Scan(); {
		_, pid, _ := strings.Cut(lines.Text(), ": ")
		pids = append(pids, pid)
	}
	if len(pids) < n {
		t.Fatalf("viver %q began %q", args, pids)
	}
	return cmd, pids, said
}

// endProcesses waits until none of these processes runs.
func (l *sshLab) endProcesses(t *testing.T, pids []string) {
	t.Helper()
	l.until(t, "commands on other machines end: "+strings.Join(pids, " "), func() bool {
		return !slices.ContainsFunc(pids, func(pid string) bool {
			state, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
			return err == nil && !strings.Contains(string(state), ") Z ")
		})
	})
}

// OpenSSH's client and server do what viver says of them: each machine is known by the key
// that it published and by no other, results are told apart, and no command goes on when
// viver does not.
func TestNetnsShell(t *testing.T) {
	netbedtest.Need(t, "ssh", "ssh-agent", "/usr/sbin/sshd")
	home := os.Getenv("HOME")
	if !netbedtest.EnterWithUsers(t) {
		return
	}
	l := openSSHLab(t, home, 4)
	const own = `echo $SSH_CONNECTION | cut -d' ' -f3`
	l.viver(t, exitOK, []string{"run", "--all", own}, "a: 10.9.0.1", "b: 10.9.0.2", "c: 10.9.0.3", "d: 10.9.0.4")
	l.viver(t, exitFailed, []string{"run", "b", "c", "--", "exit 255"}, "viver: 0 of 2 machines", "  b: exit status 255", "  c: exit status 255")
	l.viver(t, exitFailed, []string{"run", "b", "--", "exec no-such-program"}, "  b: exit status 127")
	l.viver(t, exitFailed, []string{"run", "--timeout", "2s", "b", "--", "sleep 1000"}, "  b: timed out: it was ended")
	l.viver(t, 7, []string{"ssh", "52:00:00:00:00:01", "--", own + "; exit 7"}, "10.9.0.2")
	l.viver(t, 255, []string{"ssh", "mallory@b", "true"}, "mallory@10.9.0.2: Permission denied")
	l.viver(t, exitIncomplete, []string{"run", "--user", "nobody", "b", "--", "true"}, "b: This account", "  b: not run: the user's shell there ended with exit status 1")

	t.Run("from a computer that is no node", func(t *testing.T) {
		line := append([]byte("10.9.0.2 "), l.members[1].HostKey+"\n"...)
		if err := os.WriteFile("/etc/ssh/ssh_known_hosts", line, 0o644); err != nil {
			t.Fatal(err)
		}
		l.viver(t, exitOK, []string{"run", "--via", "10.9.0.2", "--all", own}, "a: 10.9.0.1", "d: 10.9.0.4")
		l.viver(t, exitOK, []string{"ssh", "--via", "root@10.9.0.2", "c", own}, "10.9.0.3")
		l.viver(t, exitFailed, []string{"ssh", "--via", "root@10.9.0.3", "c", own}, "Host key verification failed.")
	})
	t.Run("another machine at an address", func(t *testing.T) {
		defer l.publish(t, l.members)
		members := slices.Clone(l.members)
		members[1].HostKey = sshkey.Key{66}.String()
		l.publish(t, members)
		l.viver(t, exitIncomplete, []string{"run", "--all", own}, "a: 10.9.0.1", "c: 10.9.0.3", "viver: 3 of 4", "  b: not run: Host key verification failed.")
		l.viver(t, 255, []string{"ssh", "b", "-o", "StrictHostKeyChecking=no", "true"}, "Host key verification failed.")
	})
	const endless = "echo $$; exec sleep 1000"
	t.Run("interrupted", func(t *testing.T) {
		cmd, pids, _ := l.begin(t, 4, "run", "--all", endless)
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != exitInterrupted {
			t.Errorf("%v", cmd.ProcessState)
		}
		l.endProcesses(t, pids)
	})
	t.Run("killed", func(t *testing.T) {
		cmd, pids, _ := l.begin(t, 4, "run", "--all", endless)
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // it was killed
		l.endProcesses(t, pids)
	})
	t.Run("a machine dies", func(t *testing.T) {
		const long = "echo $$; case $SSH_CONNECTION in *10.9.0.4*) exec sleep 1000 ;; esac"
		cmd, _, said := l.begin(t, 4, "run", "--all", long)
		if err := l.bed.Node(3).SetLink(false); err != nil {
			t.Fatal(err)
		}
		l.turn(3, control.Dead)
		if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != exitFailed {
			t.Errorf("%v", cmd.ProcessState)
		}
		for _, want := range []string{"no other node has an answer from d any more", "viver: 3 of 4 machines", "d: lost: the connection broke"} {
			if !strings.Contains(said.String(), want) {
				t.Errorf("it does not say %q", want)
			}
		}
		l.viver(t, exitIncomplete, []string{"run", "c", "d", "--", own}, "c: 10.9.0.3", "  d: not run: it is dead")
		l.turn(3, control.Alive)
		l.viver(t, exitIncomplete, []string{"run", "c", "d", "--", own}, "c: 10.9.0.3", "  d: not run: ssh: connect to host 10.9.0.4 port 22:")
	})
}
