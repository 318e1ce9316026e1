package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"viver.lan/internal/booted"
	"viver.lan/internal/control"
	"viver.lan/internal/netbed/netbedtest"
	"viver.lan/internal/roles"
	"viver.lan/internal/runes"
)

// stateDir is the runner's directory, the same here and in the system.
const stateDir = "/run/viver"

// bootSystem returns a system with a root and a mount namespace of its own: the programs
// of this machine, and /run as it is here. It ends with the test.
func bootSystem(t *testing.T) booted.System {
	t.Helper()
	root := t.TempDir()
	must(t, os.MkdirAll(stateDir, 0o755))
	const script = `set -e
mount -t tmpfs system "$0"
cd "$0"
for d in dev proc usr etc run tmp; do mkdir $d; done
for d in bin sbin lib lib64; do test ! -L /$d || ln -s usr/$d $d; done
mount --rbind /dev dev; mount --rbind /proc proc; mount --rbind /usr usr; mount --rbind /run run
printf 'root:x:0:0::/:/bin/sh\nkeeper:x:0:0::/home/keeper:/bin/sh\n' >etc/passwd; printf 'root:x:0:\n' >etc/group
exec chroot . /bin/sh -c 'echo up; exec sleep 3600'`
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", script, root)
	cmd.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if _, err := fmt.Fscanln(out, new(string)); err != nil {
		t.Fatalf("the system does not come up: %v", err)
	}
	return booted.System{Process: "/proc/" + strconv.Itoa(cmd.Process.Pid)}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for something that another process does.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

// fakeNetwork is the block daemon.
type fakeNetwork struct {
	statuses chan *control.Status
	mu       sync.Mutex
	told     []roles.Name
}

func (n *fakeNetwork) WatchMembers(ctx context.Context, take func(*control.Status, error) error) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case s := <-n.statuses:
			if err := take(s, nil); err != nil {
				return err
			}
		}
	}
}

func (n *fakeNetwork) SetRoles(_ context.Context, held []roles.Name) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = held
	return nil
}

const testRune = `name = "a"
[[role]]
name  = "server"
wants = "one"
[[service]]
name  = "web"
role  = "server"
start = ["/bin/sh", "-c", "echo begun as $USER >>/run/rune.log; exec sleep 3600"]
user  = "keeper"
[[service]]
name  = "node"
start = ["/bin/sleep", "{{ len .Members }}000"]
[[file]]
path  = "/run/web.conf"
roles = ["server"]
[[file]]
path  = "/etc/hosts"
live  = true
`

func readBundles(t *testing.T, files fstest.MapFS) func() ([]runes.Bundle, error) {
	t.Helper()
	return func() ([]runes.Bundle, error) {
		bundles, errs := runes.Load(files)
		return bundles, errors.Join(errs...)
	}
}

// life is a runner that runs.
type life struct {
	network *fakeNetwork
	end     func()
}

func live(t *testing.T, c Config) life {
	t.Helper()
	n := &fakeNetwork{statuses: make(chan *control.Status)}
	c.Network, c.Dir, c.Log, c.settled = n, stateDir, slog.New(slog.NewTextHandler(t.Output(), nil)), true
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, c) }()
	return life{n, func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}}
}

func currentState(t *testing.T) State {
	t.Helper()
	s, err := ReadState(filepath.Join(stateDir, StateFile))
	must(t, err)
	return s
}

// TestNetnsRunner follows a rune through the life of a system whose init keeps nothing
// running: it gets a role, loses it, and meanwhile the runner is killed and comes again.
//
//	this process ── the runner ──> mount namespace and root of "process 1"
func TestNetnsRunner(t *testing.T) {
	if !netbedtest.EnterWithUsers(t) {
		return
	}
	system := bootSystem(t)
	seen := func(name string) string {
		data, _ := os.ReadFile(filepath.Join(system.Root(), name))
		return string(data)
	}
	hook := &fstest.MapFile{Data: []byte("#!/bin/sh\necho $VIVER_MOMENT $VIVER_ROLE >>/run/rune.log\n"), Mode: 0o755}
	files := fstest.MapFS{"a/rune.toml": {Data: []byte(testRune)}, "a/files/run/web.conf": {Data: []byte("x")},
		"a/files/etc/hosts.tmpl": {Data: []byte("{{ range .Members }}{{ .Address }} {{ .Hostname }}\n{{ end }}")}}
	for _, m := range runes.Moments()[1:5] {
		files["a/hooks/"+string(m)] = hook
	}
	must(t, WriteStart(filepath.Join(stateDir, StartFile), Start{Facts: runes.Facts{Hostname: "node-a", Init: "other"}}))
	must(t, os.WriteFile(filepath.Join(stateDir, StateFile), []byte(`{"settled": true}`), 0o644))
	c := Config{System: system, Bundles: readBundles(t, files)}

	r := live(t, c)
	r.network.statuses <- statusOf(0, member(0))
	until(t, "the rune has its role", func() bool {
		s := currentState(t)
		return len(s.Runes) == 1 && s.Runes[0].Outcome == runes.Applied && s.Runes[0].Members != "" && strings.Contains(seen("run/rune.log"), "begun")
	})
	if got := seen("run/rune.log"); got != "booted\nrole-gained server\nbegun as keeper\nmembers-changed\n" && got != "booted\nrole-gained server\nmembers-changed\nbegun as keeper\n" {
		t.Errorf("happened: %q", got)
	}
	if seen("etc/hosts") != "10.77.0.0 node-a\n" || seen("run/web.conf") != "x" || len(currentState(t).Held) != 1 {
		t.Errorf("hosts %q, web.conf %q", seen("etc/hosts"), seen("run/web.conf"))
	}
	first := processes(t)
	r.end()

	// The runner is gone: all goes on, and is found again.
	r = live(t, c)
	r.network.statuses <- statusOf(0, member(0), member(1))
	until(t, "the other member is known", func() bool { return strings.Contains(seen("etc/hosts"), "node-b") })
	until(t, "its own service has the new argument", func() bool { return processes(t)["viver-a-node.service"] != first["viver-a-node.service"] })
	until(t, "the hook is told", func() bool { return strings.Count(seen("run/rune.log"), "members-changed") == 2 })
	if now := processes(t); now["viver-a-web.service"] != first["viver-a-web.service"] || now["viver-a-web.service"] == 0 {
		t.Errorf("services %v, before %v: the one that is the same was not found again", now, first)
	}

	// A service that dies is started again.
	must(t, unix.Kill(first["viver-a-web.service"], unix.SIGKILL))
	until(t, "the service runs again", func() bool { return processes(t)["viver-a-web.service"] != first["viver-a-web.service"] })

	// The operator or the vote gives the role to another.
	other := member(1)
	other.Roles = []roles.Name{{Rune: "a", Role: "server"}}
	r.network.statuses <- statusOf(0, member(0), other)
	until(t, "the role is lost", func() bool { return strings.Contains(seen("run/rune.log"), "role-lost server") })
	until(t, "its file is gone", func() bool { return seen("run/web.conf") == "" })
	until(t, "its service is gone", func() bool { return len(processes(t)) == 1 })
	if seen("etc/hosts") == "" {
		t.Error("a file of the distribution's was taken away")
	}
	r.end()

	// The rune itself is gone while no runner ran.
	r = live(t, Config{System: system, Bundles: readBundles(t, fstest.MapFS{"b/rune.toml": {Data: []byte(`name = "b"`)}})})
	until(t, "nothing is left of it", func() bool { return len(processes(t)) == 0 && len(currentState(t).Runes) == 0 })
	r.end()
}

// processes are those of services that are kept running, by unit.
func processes(t *testing.T) map[string]int {
	t.Helper()
	all := make(map[string]int)
	for _, r := range records(filepath.Join(stateDir, "services"), slog.New(slog.DiscardHandler)) {
		if alive(r) {
			all[r.Service.Unit] = r.Process
		}
	}
	return all
}

// TestNetnsBadHooks: a hook that hangs, forks, floods or cannot run costs its rune
// only what it is worth.
func TestNetnsBadHooks(t *testing.T) {
	if !netbedtest.Enter(t) {
		return
	}
	r := hookRunner{system: bootSystem(t), dir: filepath.Join(stateDir, "hooks")}
	for name, test := range map[string]struct{ script, want string }{
		"hangs":      {"#!/bin/sh\necho asleep\nsleep 3600 & sleep 3600\n", "not done after 3s"},
		"daemonizes": {"#!/bin/sh\nsetsid sleep 3600 &\necho fine\n", ""},
		"floods":     {"#!/bin/sh\nhead -c 200000000 /dev/zero\necho the end\n", ""},
		"forks":      {"#!/bin/sh\nfor _ in $(seq 100); do sleep 3600.0625 & done\nsleep 3600.0625\n", "not done after 3s"},
		"fills":      {"#!/bin/sh\nmount -t tmpfs -o size=64k full /tmp && head -c 1000000 /dev/zero >/tmp/large\n", "No space left on device"},
		"fails":      {"#!/bin/sh\necho no such disk\nexit 3\n", "exit status 3: no such disk"},
		"no program": {"#!/bin/no-such-shell\n", "no such file"},
	} {
		h := runes.Hook{Program: []byte(test.script), Interpreter: []string{strings.TrimSpace(strings.TrimPrefix(strings.SplitN(test.script, "\n", 2)[0], "#!"))}}
		r.limit = time.Minute
		if strings.HasPrefix(test.want, "not done after") {
			r.limit = 3 * time.Second
		}
		err := r.run(t.Context(), "a", runes.MomentBooted, h)
		if err == nil != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		log, _ := os.ReadFile(filepath.Join(r.dir, "a.booted.log"))
		if len(log) > maxHookOutput || name == "floods" && !bytes.HasSuffix(log, []byte("the end\n")) {
			t.Errorf("%s: %d bytes of output kept", name, len(log))
		}
		_ = os.Remove(filepath.Join(r.dir, "a.booted.log"))
	}
	until(t, "what a hook has started ends with it", func() bool {
		list, err := filepath.Glob("/proc/[0-9]*/cmdline")
		must(t, err)
		return !slices.ContainsFunc(list, func(name string) bool {
			args, _ := os.ReadFile(name)
			return bytes.Contains(args, []byte("\x003600.0625\x00"))
		})
	})
}

// A service that ends at once is started again ever more slowly, and it is said.
func TestNetnsServiceThatCrashes(t *testing.T) {
	if !netbedtest.Enter(t) {
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	o, err := newOwn(ctx, &own{system: bootSystem(t), dir: filepath.Join(stateDir, "services"), backoff: 10 * time.Millisecond,
		log: slog.New(slog.NewTextHandler(t.Output(), nil)), shuttingDown: func() bool { return false }})
	must(t, err)
	bad := stateOf("a", runes.Service{Name: "bad", Start: []string{"/bin/false"}})
	must(t, o.start(t.Context(), bad))
	until(t, "it is started again", func() bool {
		all, err := o.conditions(t.Context(), nil)
		c := all[bad.Unit]
		return err == nil && c.restarts > 3 && c.state == Starting && strings.Contains(c.reason, "ended, started again in")
	})
	must(t, o.stop(t.Context(), bad))
	if len(processes(t)) != 0 {
		t.Error("it is still there")
	}
	missing := stateOf("a", runes.Service{Name: "missing", Start: []string{"/bin/no-such-program"}})
	if err := o.start(t.Context(), missing); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
	unknown := stateOf("a", runes.Service{Name: "unknown", Start: []string{"/bin/true"}, User: "nobody-here"})
	if err := o.start(t.Context(), unknown); err == nil || !strings.Contains(err.Error(), `no user "nobody-here"`) {
		t.Error(err)
	}
	cancel()
	o.close()
}
