package runner

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/booted"
	"viver.lan/internal/initsystem"
	"viver.lan/internal/runes"
)

func TestParseShow(t *testing.T) {
	got := parseShow([]byte("ExecMainCode=0\nExecMainStatus=0\nNRestarts=0\nId=viver-a-web.service\nActiveState=active\nSubState=running\n\n" +
		"ExecMainCode=1\nExecMainStatus=3\nNRestarts=17\nId=viver-a-bad.service\nActiveState=activating\nSubState=auto-restart\n\n" +
		"ExecMainCode=2\nExecMainStatus=11\nId=viver-a-old.service\nActiveState=activating\nSubState=auto-restart\n\n" +
		"NRestarts=0\nId=viver-a-gone.service\nActiveState=inactive\nSubState=dead\n"))
	for unit, want := range map[string]condition{
		"viver-a-web.service": {state: Running},
		"viver-a-bad.service": {state: Starting, restarts: 17, reason: "ended with exit status 3"},
		"viver-a-old.service": {state: Starting, reason: "ended with signal 11"},
	} {
		if got[unit] != want {
			t.Errorf("%s: %+v, want %+v", unit, got[unit], want)
		}
	}
	if len(got) != 3 {
		t.Errorf("%v", got)
	}
}

func FuzzParseShow(f *testing.F) {
	f.Add([]byte("Id=a\nActiveState=active\n\n"))
	f.Fuzz(func(_ *testing.T, out []byte) { parseShow(out) })
}

func FuzzParseStat(f *testing.F) {
	f.Add("17 (a) b) S 1 17 17 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1")
	f.Fuzz(func(_ *testing.T, stat string) { _, _ = parseStat(stat) })
}

func TestParseStat(t *testing.T) {
	if now, err := parseStat("17 (a) b) S 1 17 17 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1"); err != nil || now != 4711 {
		t.Errorf("%d, %v", now, err)
	}
	for _, stat := range []string{"", "17 (a) S 1", "17 (a) Z 1 17 17 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1"} {
		if _, err := parseStat(stat); err == nil {
			t.Errorf("%q is taken for a running process", stat)
		}
	}
	if _, err := began(os.Getpid()); err != nil {
		t.Error(err)
	}
}

func TestSystemdCommands(t *testing.T) {
	var ran []string
	var answer error
	d := systemd{run: func(_ context.Context, argv ...string) ([]byte, error) {
		ran = append(ran, strings.Join(argv, " "))
		if strings.HasPrefix(argv[0], "/bin/systemctl") {
			return nil, errors.New("Failed to stop x.service: Unit x.service not loaded.")
		}
		return nil, answer
	}}
	s := stateOf("a", runes.Service{Name: "web", Start: []string{"/bin/web", "$HOME", "%n"}, Stop: "SIGINT", User: "www-data"})
	if err := d.start(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(ran, "\n"); !strings.Contains(got, "stop viver-a-web.service") ||
		!strings.Contains(got, "--unit=viver-a-web.service") || !strings.Contains(got, "--property=KillSignal=SIGINT --uid=www-data -- /bin/web $$HOME %n") {
		t.Error(got)
	}
	ran, answer = nil, errors.New("no such file")
	if err := d.start(t.Context(), s); err == nil || len(ran) != 3 {
		t.Errorf("%v, %v: want an error, and the unit stopped again", err, ran)
	}
}

// What the shell of the image gets at shutdown is what the hook would have got.
func TestShutdownScript(t *testing.T) {
	dir := t.TempDir()
	program, script := dir+"/a.shutdown", dir+"/a.shutdown.sh"
	h := runes.Hook{Program: []byte("#!/bin/sh\necho \"$VIVER_HOSTNAME $VIVER_SETTING_X\"\n"), Interpreter: []string{"/bin/sh"},
		Env: []string{"VIVER_HOSTNAME=node-1", "VIVER_SETTING_X=it's $HOME; `id`"}}
	if err := errors.Join(writeProgram(program, h.Program), writeProgram(script, shutdownScript(h, program))); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "/bin/sh", script).CombinedOutput(); err != nil || string(out) != "node-1 it's $HOME; `id`\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// sysvinit, which may start OpenRC, and runit run what is armed before what the
// distribution does at shutdown, once, however often it is armed. What they cannot run is
// said.
func TestShutdownByAFileOfTheDistribution(t *testing.T) {
	const inittab, runit = "/etc/inittab", "/etc/runit/3"
	for _, c := range []struct {
		init       initsystem.Kind
		file       string
		before     string // in the file, then LINE, then after
		line       string
		after      string
		impossible bool
	}{
		{init: initsystem.SysVInit, file: inittab, line: "vh:06:wait:", after: "id:2:initdefault:\nl0:0:wait:/etc/init.d/rc 0\n"},
		{init: initsystem.OpenRC, file: inittab, line: "vh:06:wait:", after: "id:3:initdefault:\nl0:0:wait:/sbin/openrc shutdown\n"},
		{init: initsystem.OpenRC, file: inittab, after: "::sysinit:/sbin/openrc sysinit\n::shutdown:/sbin/openrc shutdown\n", impossible: true},
		{init: initsystem.OpenRC, impossible: true},
		{init: initsystem.Runit, file: runit, before: "#!/bin/sh\n", after: "exec 2>&1\nsv force-stop /etc/service/*\n"},
		{init: initsystem.Runit, file: runit, before: "#!/bin/bash -u\n", after: "exit 0\n"},
		{init: initsystem.Runit, file: runit, after: "\x7fELF\n", impossible: true},
		{init: initsystem.BusyBox, file: inittab, after: "::sysinit:/etc/init.d/rcS\n", impossible: true},
	} {
		process, dir := t.TempDir(), t.TempDir()
		file := filepath.Join(process, "root", c.file)
		if c.file != "" {
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(c.before+c.after), 0o755)); err != nil {
				t.Fatal(err)
			}
		}
		r := hookRunner{system: booted.System{Process: process}, dir: dir, limit: hookTimeout, init: c.init}
		for _, name := range []string{"a", "b", "a"} {
			h := runes.Hook{Program: []byte("#!/bin/sh\necho " + name + "\n"), Interpreter: []string{"/bin/sh"}}
			if err := r.arm(t.Context(), name, h); errors.Is(err, errors.ErrUnsupported) != c.impossible || err != nil && !c.impossible {
				t.Errorf("%s, %q: %v", c.init, c.after, err)
			}
		}
		want := c.before + c.line + "/bin/sh " + dir + "/all.sh\n" + c.after
		if c.impossible {
			want = c.after
		}
		if got, err := os.ReadFile(file); c.file != "" && (err != nil || string(got) != want) {
			t.Errorf("%s: %q, %v; want %q", c.init, got, err, want)
		}
		if c.impossible {
			continue
		}
		if out, err := exec.CommandContext(t.Context(), "/bin/sh", dir+"/all.sh").CombinedOutput(); err != nil || string(out) != "a\nb\n" {
			t.Errorf("%s: %q, %v", c.init, out, err)
		}
	}
}

// What a service has started ends with it, also when its own process ended before.
func TestAServiceLeavesNothingBehind(t *testing.T) {
	kill := filepath.Join(t.TempDir(), "cgroup.kill")
	ended := record{Service: ServiceState{Unit: "viver-a-s.service"}, Process: os.Getpid(), Began: 1, Cgroup: filepath.Dir(kill)}
	for what, leave := range map[string]func(){
		"it is stopped": func() {
			if err := end(t.Context(), ended); err != nil {
				t.Error(err)
			}
		},
		"it is started again": func() {
			ctx, cancel := context.WithCancel(t.Context())
			o := &own{shuttingDown: func() bool { return false }, backoff: time.Hour, log: slog.New(slog.NewTextHandler(cancelling(cancel), nil))}
			o.guard(ctx, &kept{record: ended}) // until it says that it waits
		},
	} {
		if err := os.WriteFile(kill, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		leave()
		if got, err := os.ReadFile(kill); err != nil || string(got) != "1" {
			t.Errorf("%s: %q, %v", what, got, err)
		}
	}
}

// cancelling is a log that ends a context.
type cancelling context.CancelFunc

func (c cancelling) Write(p []byte) (int, error) {
	c()
	return len(p), nil
}

// To arm again under systemd is to write the script again: whoever stops the unit runs the
// hook. A rune that is gone has no hook.
func TestShutdownUnderSystemd(t *testing.T) {
	const unit = "viver-a_shutdown.service"
	var units, ran []string
	r := hookRunner{dir: t.TempDir(), limit: hookTimeout, init: initsystem.Systemd, command: func(_ context.Context, argv ...string) ([]byte, error) {
		switch {
		case argv[0] != systemctl:
			units = append(units, unit)
		case argv[1] == "show":
			return []byte("Id=" + unit + "\nActiveState=" + []string{"inactive", "active"}[min(1, len(units))] + "\n"), nil
		}
		ran = append(ran, argv[0])
		return nil, nil
	}}
	script := r.dir + "/a.shutdown.sh"
	for _, word := range []string{"one", "two"} {
		h := runes.Hook{Program: []byte("#!/bin/sh\necho " + word + "\n"), Interpreter: []string{"/bin/sh"}}
		if err := r.arm(t.Context(), "a", h); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "/bin/sh", script).CombinedOutput(); err != nil || string(out) != word+"\n" {
			t.Errorf("%q, %v", out, err)
		}
	}
	if !slices.Equal(ran, []string{"/usr/bin/systemd-run"}) {
		t.Errorf("ran %q: want the unit once, and never stopped", ran)
	}
	for range 2 {
		if err := r.disarm("a"); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(script); err == nil {
		t.Error("the hook of a rune that is gone would run")
	}
}
