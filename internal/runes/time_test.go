package runes

import (
	"context"
	"fmt"
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

// chronyArguments are what the rune starts chronyd with on one machine.
func chronyArguments(t *testing.T, where Target, f Facts) []string {
	t.Helper()
	root, err := openTarget(where)
	must(t, err)
	defer root.Close()
	bundles := builtins(t)
	b := bundles[slices.IndexFunc(bundles, func(b Bundle) bool { return b.Name == "time" })]
	var args []string
	for _, tmpl := range b.services[0].start {
		arg, err := execute(tmpl, scope{t: root, b: b, facts: f})
		must(t, err)
		args = append(args, string(arg))
	}
	return args
}

func hostOf(address string) string { return "n" + strings.ReplaceAll(address, ".", "-") }

func clockFacts(self string, holder string, members ...string) Facts {
	f := Facts{Address: self, PrefixLength: 16, Hostname: hostOf(self), Init: "systemd"}
	for _, m := range members {
		fact := MemberFact{Hostname: hostOf(m), Address: m}
		if m == holder {
			fact.Roles = []string{"time/server"}
		}
		f.Members = append(f.Members, fact)
	}
	if self == holder {
		f.Roles = []string{"time/server"}
	}
	return f
}

func TestWhoseClock(t *testing.T) {
	where := image(t, map[string]string{"usr/sbin/chronyd": "", "etc/chrony/chrony.conf": "", "etc/init.d/chrony": "", "etc/default/chrony": "DAEMON_OPTS=\"-F 1\"\n"})
	bundles := builtins(t)
	configured, err := Configure(bundles, map[string]map[string]string{"time": {"servers": " ntp1.example  192.0.2.7 "}})
	must(t, err)
	f := clockFacts("10.9.0.1", "10.9.0.1", "10.9.0.1", "10.9.0.2")
	f.NTP = []string{"10.9.0.250"}
	for want, list := range map[string][]Bundle{"server 10.9.0.250 iburst\n": bundles, "server ntp1.example iburst\nserver 192.0.2.7 iburst\n": configured} {
		apply(t, where, list, f)
		if got := read(t, where, "/run/chrony-dhcp/viver.conf"); !strings.HasSuffix(got, "orphan\n"+want) {
			t.Errorf("%q", got)
		}
	}
	if got := read(t, where, "/run/systemd/system/chrony.service.d/viver.conf"); !strings.Contains(got, "ConditionPathExists=!/run/viver\n") {
		t.Errorf("the distribution's service starts too: %q", got)
	}
	for self, wants := range map[string][]string{
		"10.9.0.1": {"include /etc/chrony/chrony.conf", "include /run/chrony-dhcp/viver.conf"},
		"10.9.0.2": {"include /etc/chrony/chrony.conf", "server 10.9.0.1 iburst minpoll 4 maxpoll 6 prefer trust"},
	} {
		args := chronyArguments(t, where, clockFacts(self, "10.9.0.1", "10.9.0.1", "10.9.0.2"))
		for _, want := range wants {
			if !slices.Contains(args, want) {
				t.Errorf("%s: %q lacks %q", self, args, want)
			}
		}
	}
	// A machine whose clock is right has the role server, another one fallback.
	f = clockFacts("10.9.0.1", "10.9.0.2", "10.9.0.1", "10.9.0.2")
	f.Roles, f.Members[0].Roles = []string{"time/fallback"}, []string{"time/fallback"}
	if args := chronyArguments(t, where, f); !strings.HasPrefix(args[len(args)-1], "server 10.9.0.2 ") {
		t.Errorf("the holder of fallback does not follow that of server: %q", args)
	}
	f.Members[1].Roles = nil
	if args := chronyArguments(t, where, f); args[len(args)-1] != "include /run/chrony-dhcp/viver.conf" {
		t.Errorf("where no clock is right, nobody serves: %q", args)
	}
	f = clockFacts("10.9.0.2", "", "10.9.0.1", "10.9.0.2")
	f.Members[0].Roles = []string{"time/fallback"}
	if args := chronyArguments(t, where, f); !strings.HasPrefix(args[len(args)-1], "server 10.9.0.1 ") {
		t.Errorf("where no clock is right, nobody is followed: %q", args)
	}
	// Before anybody has a role.
	if args := chronyArguments(t, where, clockFacts("10.9.0.2", "", "10.9.0.2")); strings.Contains(strings.Join(args, "\n"), "server") {
		t.Errorf("%q", args)
	}
	f.Init = "sysvinit"
	where.Run = t.TempDir()
	for range 2 {
		apply(t, where, bundles, f)
		if got := read(t, where, "/etc/default/chrony"); got != "DAEMON_OPTS=\"-F 1\"\nexit 0 # viver\n" {
			t.Errorf("sysvinit: %q", got)
		}
	}
	if got := read(t, where, "/run/systemd/system/chrony.service.d/viver.conf"); got != "" {
		t.Error("sysvinit: there is something for systemd, which other programs take for systemd itself")
	}
}

// chronyd of Debian, started by the rune's own command, on three machines: two follow the
// holder, and when that dies, the next.
func TestNetnsClocksFollowTheHolder(t *testing.T) {
	netbedtest.Need(t, "chronyd", "chronyc")
	if !netbedtest.EnterWithUsers(t) {
		return
	}
	bed, err := netbed.New(netbed.Config{Nodes: 3})
	must(t, err)
	defer bed.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	where := Target{Root: image(t, map[string]string{"usr/sbin/chronyd": "", "etc/chrony/chrony.conf": ""}).Root, Run: "/run"}
	var members []string
	for _, n := range bed.Nodes() {
		members = append(members, n.Addr().String())
	}
	start := func(i int, holder string, members []string) *exec.Cmd {
		f := clockFacts(bed.Node(i).Addr().String(), holder, members...)
		apply(t, where, builtins(t), f)
		args := chronyArguments(t, where, f)
		// In the bed the nodes share one /run, and nobody may set the machine's clock.
		dir := fmt.Sprintf("/run/chrony%d", i)
		args = append(args, "bindcmdaddress "+dir+"/chronyd.sock", "pidfile "+dir+".pid", "driftfile "+dir+"/drift", "dumpdir "+dir)
		cmd := bed.Node(i).Command(ctx, args[0], append([]string{"-x"}, args[1:]...)...)
		cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
		must(t, cmd.Start())
		return cmd
	}
	follows := func(i int, want string) {
		t.Helper()
		chronyc := func(args ...string) string {
			out, err := bed.Node(i).Command(ctx, "chronyc", append([]string{"-n", "-c", "-h", "127.0.0.1"}, args...)...).CombinedOutput()
			if err != nil {
				t.Fatalf("chronyc %v on node %d: %v: %s", args, i, err, out)
			}
			return string(out)
		}
		chronyc("waitsync", "90", "0", "0", "0.5")
		if got := chronyc("tracking"); !strings.Contains(got, ","+want+",") {
			t.Errorf("node %d follows %s, want %s", i, got, want)
		}
	}
	end := func(cmd *exec.Cmd) {
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
	}
	first := []*exec.Cmd{start(0, members[0], members), start(1, members[0], members), start(2, members[0], members)}
	follows(1, members[0])
	follows(2, members[0])
	for _, cmd := range first {
		end(cmd) // node 0 has died; the runner ends the others, whose arguments change
	}
	second := []*exec.Cmd{start(1, members[1], members[1:]), start(2, members[1], members[1:])}
	follows(2, members[1])
	for _, cmd := range second {
		end(cmd)
	}
	if _, err := os.Stat(filepath.Join("/run", "chrony")); err == nil {
		t.Error("a chronyd wrote outside of its node's directory")
	}
}
