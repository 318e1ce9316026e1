package runes

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/netbed"
	"viver.lan/internal/netbed/netbedtest"
)

// The rune compile on a root like Debian's: what is laid and what is to run, by role.
func TestCompile(t *testing.T) {
	files := map[string]string{"usr/sbin/iceccd": "", "usr/sbin/icecc-scheduler": "", "etc/init.d/iceccd": "", "usr/bin/ccache": "", "etc/default/icecc": "ICECC_NICE_LEVEL=9\n"}
	where := image(t, files)
	f := testFacts()
	f.Init = "sysvinit"
	const own = "ICECC_NICE_LEVEL=9\n[ ! -e /run/viver-compile/profile ] || exit 0 # VIVER's rune \"compile\" starts icecc\n"
	for range 2 { // the second time as with saved data
		apply(t, where, builtins(t), f)
		if got := read(t, where, "/etc/default/icecc"); got != own {
			t.Errorf("Debian's own daemon reads %q, want %q", got, own)
		}
	}
	compile := compileRune(t)
	if r := apply(t, image(t, nil), []Bundle{compile}, f)["compile"]; r.Outcome != Skipped || !strings.HasPrefix(r.Reason, "needs icecc: ") || len(r.Files) != 0 {
		t.Errorf("without icecc in the image: %+v", r)
	}
	where = image(t, files)
	f.Init = "systemd"
	if r := apply(t, where, []Bundle{compile}, f)["compile"]; r.Outcome != Applied {
		t.Fatalf("%+v", r)
	}
	if link, err := os.Readlink(filepath.Join(where.Run, "systemd/system/iceccd.service")); err != nil || link != "/dev/null" {
		t.Errorf("Debian's own daemon is %q, %v", link, err)
	}

	daemon := "/usr/sbin/iceccd --interface eth0 -N node-1a2b --user-uid icecc --scheduler-host %s --env-basedir /var/cache/icecc --cache-limit %s %s"
	const scheduler = "/usr/sbin/icecc-scheduler --interface eth0 --persistent-client-connection"
	me := MemberFact{Hostname: f.Hostname, Address: f.Address, CPUs: 4}
	other := MemberFact{Hostname: "other", Address: "10.77.3.5", CPUs: 8}
	with := func(m MemberFact, roles ...string) MemberFact { m.Roles = roles; return m }
	for _, c := range []struct {
		name     string
		members  []MemberFact
		settings map[string]string
		jobs     string
		path     string
		want     []string
	}{
		{"alone, nothing decided", []MemberFact{me}, nil, "1", "/usr/lib/ccache", []string{fmt.Sprintf(daemon, "127.0.0.1", "256", "--no-remote")}},
		{"another is the scheduler", []MemberFact{with(me, "compile/worker"), with(other, "compile/scheduler", "compile/worker")}, nil, "12", "/usr/lib/ccache",
			[]string{fmt.Sprintf(daemon, "10.77.3.5", "256", "--nice=5")}},
		{"it is the scheduler, and no worker", []MemberFact{with(me, "compile/scheduler"), with(other, "compile/worker")}, map[string]string{"cache": "9", "ccache": "0"}, "8", "/usr/lib/icecc/bin",
			[]string{scheduler, fmt.Sprintf(daemon, "10.77.3.4", "9", "--no-remote")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.Members, f.Roles = c.members, c.members[0].Roles
			set, err := Configure([]Bundle{compile}, map[string]map[string]string{"compile": c.settings})
			must(t, err)
			got := wanted(t, Target{Root: where.Root}, set[0], f)
			if words := commands(got); !slices.Equal(words, c.want) {
				t.Errorf("runs %q, want %q", words, c.want)
			}
			if jobs := content(got, "/run/viver-compile/jobs"); jobs != c.jobs+"\n" {
				t.Errorf("jobs: %q, want %s", jobs, c.jobs)
			}
			if profile := content(got, "/run/viver-compile/profile"); !strings.Contains(profile, "viver_compilers="+c.path+"\n") {
				t.Errorf("the shell's profile: %s", profile)
			}
		})
	}
}

func compileRune(t *testing.T) Bundle {
	t.Helper()
	all := builtins(t)
	return all[slices.IndexFunc(all, func(b Bundle) bool { return b.Name == "compile" })]
}

func wanted(t *testing.T, where Target, b Bundle, f Facts) Wanted {
	t.Helper()
	s, err := OpenSystem(where)
	must(t, err)
	defer s.Close()
	w := s.Wanted(b, f)
	if w.Skipped != "" {
		t.Fatalf("skipped: %s", w.Skipped)
	}
	return w
}

func commands(w Wanted) []string {
	var list []string
	for _, s := range w.Services {
		list = append(list, strings.Join(s.Start, " "))
	}
	return list
}

func content(w Wanted, path string) string {
	for _, f := range w.Files {
		if f.Path == path {
			return string(f.it.data)
		}
	}
	return ""
}

const compileDeadline = 2 * time.Minute // only broken things reach it

// icecream is a network of machines that hold the rune's roles, and do what it says:
//
//	node 0 (make) --- node 1 --- node 2 --- node 3
type icecream struct {
	t     *testing.T
	dir   string
	bed   *netbed.Bed
	rune  Bundle
	nodes []*icecreamNode
}

type icecreamNode struct {
	*netbed.Node
	roles    []string
	dead     bool
	services map[string]*icecreamService
}

type icecreamService struct {
	start []string
	stop  func()
}

// TestNetnsCompile has the real daemons, started as the rune says, build a program: on
// several machines, while one dies, while the one with the scheduler dies, and with the
// next scheduler.
func TestNetnsCompile(t *testing.T) {
	netbedtest.Need(t, "/usr/sbin/iceccd", "/usr/sbin/icecc-scheduler", "icecc", "ccache", "gcc", "make", "unshare", "setpriv")
	if !netbedtest.EnterWithUsers(t) {
		return
	}
	n := newIcecream(t, 4)
	const scheduler, worker = "compile/scheduler", "compile/worker"
	for i, node := range n.nodes {
		node.roles = []string{worker}
		if i == 1 {
			node.roles = append(node.roles, scheduler)
		}
	}
	n.converge()
	n.waitFor(n.nodes[1], 4)

	build := n.make("first", 1, 2)
	build.waitFor(n.nodes[1])
	build.waitFor(n.nodes[2])
	n.kill(n.nodes[2]) // before it has the compiler, which each is sent with its first job
	build.wait()
	if text, _ := os.ReadFile(build.log); !bytes.Contains(text, []byte("got exception")) {
		t.Errorf("nothing was lost with the machine that died:\n%s", text)
	}

	build = n.make("second", 1, 3)
	build.waitFor(n.nodes[1])
	n.kill(n.nodes[1])
	n.nodes[3].roles = append(n.nodes[3].roles, scheduler)
	n.converge()
	build.wait()

	n.waitFor(n.nodes[3], 2)
	build = n.make("third", 3)
	build.waitFor(n.nodes[3])
	build.wait()
}

func newIcecream(t *testing.T, nodes int) *icecream {
	n := &icecream{t: t, dir: t.TempDir(), rune: compileRune(t)}
	must(t, os.Chmod(n.dir, 0o755))
	bed, err := netbed.New(netbed.Config{Nodes: nodes})
	must(t, err)
	t.Cleanup(func() { bed.Close() })
	n.bed = bed
	// A machine that has no processor time to spare gets no job. All of these share the
	// processors, so each is shown an idle machine.
	must(t, os.WriteFile(filepath.Join(n.dir, "stat"), []byte("cpu  0 0 0 0 0 0 0 0 0 0\n"), 0o644))
	for _, node := range bed.Nodes() {
		n.nodes = append(n.nodes, &icecreamNode{Node: node, services: make(map[string]*icecreamService)})
		for _, name := range []string{"run", "cache"} {
			must(t, os.MkdirAll(n.of(node, name), 0o755))
		}
		out, err := exec.Command("chown", "icecc", n.of(node, "cache")).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	return n
}

func (n *icecream) of(node *netbed.Node, name string) string {
	return filepath.Join(n.dir, fmt.Sprintf("%s-%d", name, node.Index()))
}

// command is a program on a machine with /run and /var/cache/icecc of its own.
func (n *icecream) command(ctx context.Context, node *netbed.Node, argv ...string) *exec.Cmd {
	script := fmt.Sprintf("mount --bind %s /run && mount --bind %s /var/cache/icecc && mount --bind %s /proc/stat && exec \"$@\"",
		n.of(node, "run"), n.of(node, "cache"), filepath.Join(n.dir, "stat"))
	return node.Command(ctx, "unshare", append([]string{"--mount", "--propagation=private", "sh", "-c", script, "sh"}, argv...)...)
}

// facts are what a machine knows while these are up.
func (n *icecream) facts(node *icecreamNode) Facts {
	name := func(i int) string { return fmt.Sprintf("node-%d", i) }
	f := Facts{Hostname: name(node.Index()), Interface: "eth0", Address: node.Addr().String(), Roles: node.roles}
	for _, other := range n.nodes {
		if !other.dead {
			f.Members = append(f.Members, MemberFact{Hostname: name(other.Index()), Address: other.Addr().String(), CPUs: 2, Roles: other.roles})
		}
	}
	return f
}

// converge has each machine run what the rune wants now.
func (n *icecream) converge() {
	for _, node := range n.nodes {
		if node.dead {
			continue
		}
		for _, s := range wanted(n.t, Target{Root: "/"}, n.rune, n.facts(node)).Services {
			must(n.t, s.Err)
			if old := node.services[s.Name]; old != nil {
				if slices.Equal(old.start, s.Start) {
					continue
				}
				old.stop()
			}
			node.services[s.Name] = n.start(node, s)
		}
	}
}

func (n *icecream) start(node *icecreamNode, s Service) *icecreamService {
	argv := s.Start
	if s.User != "" {
		argv = append([]string{"setpriv", "--reuid=" + s.User, "--regid=" + s.User, "--clear-groups"}, argv...)
	}
	ctx, cancel := context.WithCancel(n.t.Context())
	cmd := n.command(ctx, node.Node, argv...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	must(n.t, cmd.Start())
	done := make(chan struct{})
	go func() { cmd.Wait(); close(done) }()
	stop := func() { cancel(); <-done }
	n.t.Cleanup(func() {
		stop()
		n.t.Logf("node %d, %s: %s", node.Index(), s.Name, out.Bytes())
	})
	return &icecreamService{start: s.Start, stop: stop}
}

// kill ends all that runs on a machine, by SIGKILL.
func (n *icecream) kill(node *icecreamNode) {
	node.dead = true
	for _, s := range node.services {
		s.stop()
	}
}

// waitFor waits until the scheduler on a machine has so many daemons.
func (n *icecream) waitFor(node *icecreamNode, daemons int) {
	n.t.Helper()
	var said string
	for end := time.Now().Add(compileDeadline); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		said = n.ask(node, "listcs\nquit\n")
		if strings.Count(said, ":10245)") == daemons {
			return
		}
	}
	n.t.Fatalf("the scheduler never has %d daemons: %s", daemons, said)
}

// ask talks to the port at which a scheduler tells people about itself.
func (n *icecream) ask(node *icecreamNode, words string) string {
	c, err := node.Dial(n.t.Context(), "tcp", node.AddrPort(8766).String())
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(compileDeadline))
	if _, err := c.Write([]byte(words)); err != nil {
		return err.Error()
	}
	var said bytes.Buffer
	said.ReadFrom(net.Conn(c))
	return said.String()
}

// build is one run of make on node 0.
type build struct {
	t    *testing.T
	log  string // what icecc says
	out  bytes.Buffer
	done chan error
}

// make builds a program of files that no build had before, as somebody who has logged in
// on node 0. One file goes to each of some machines, the others where the scheduler
// likes, which for small ones may be nowhere else.
func (n *icecream) make(name string, machines ...int) *build {
	n.t.Helper()
	dir := filepath.Join(n.dir, name)
	must(n.t, os.Mkdir(dir, 0o755))
	const files = 10
	for i := range files {
		var source strings.Builder
		fmt.Fprintf(&source, "#include <stdio.h>\nconst char *name%d = %q;\n", i, name)
		for j := range 15 {
			fmt.Fprintf(&source, "int f%d_%d(int a, int b) { int s = 0; for (int i = 0; i < a; i++) { s += i * b; if (s & 8) s ^= a * %d; else s -= b; } return s; }\n", i, j, j)
		}
		must(n.t, os.WriteFile(fmt.Sprintf("%s/f%d.c", dir, i), []byte(source.String()), 0o644))
	}
	must(n.t, os.WriteFile(dir+"/main.c", []byte("int main(void) { return 0; }\n"), 0o644))
	makefile := "program: $(patsubst %.c,%.o,$(wildcard *.c))\n\tgcc -o $@ $^\n%.o: %.c\n\t$(to_$*) gcc -O2 -c -o $@ $<\n"
	for i, machine := range machines {
		makefile += fmt.Sprintf("to_f%d = ICECC_PREFERRED_HOST=node-%d\n", i, machine)
	}
	must(n.t, os.WriteFile(dir+"/Makefile", []byte(makefile), 0o644))

	node := n.nodes[0]
	got := wanted(n.t, Target{Root: "/"}, n.rune, n.facts(node))
	must(n.t, os.WriteFile(dir+"/profile", []byte(content(got, "/run/viver-compile/profile")), 0o644))
	b := &build{t: n.t, log: filepath.Join(dir, "icecc.log"), done: make(chan error, 1)}
	ctx, cancel := context.WithTimeout(n.t.Context(), compileDeadline)
	jobs := strings.TrimSpace(content(got, "/run/viver-compile/jobs"))
	cmd := n.command(ctx, node.Node, "sh", "-ec", ". ./profile; make -j"+jobs+"; ./program")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "HOME="+n.dir, "ICECC_DEBUG=debug", "ICECC_LOGFILE="+b.log)
	cmd.Stdout, cmd.Stderr = &b.out, &b.out
	must(n.t, cmd.Start())
	go func() { defer cancel(); b.done <- cmd.Wait() }()
	return b
}

// waitFor waits until the build has been told to send something to a machine.
func (b *build) waitFor(node *icecreamNode) {
	b.t.Helper()
	line := "Have to use host " + node.Addr().String() + ":"
	for {
		text, _ := os.ReadFile(b.log)
		if bytes.Contains(text, []byte(line)) {
			return
		}
		select {
		case err := <-b.done:
			b.t.Fatalf("the build ended, %v, and sent nothing to %s: %s\n%s", err, node.Addr(), b.out.Bytes(), text)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// wait waits for the build, which must end well.
func (b *build) wait() {
	b.t.Helper()
	if err := <-b.done; err != nil {
		text, _ := os.ReadFile(b.log)
		b.t.Fatalf("the build: %v: %s\n%s", err, b.out.Bytes(), text)
	}
}
