package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/control"
	"viver.lan/internal/roles"
	"viver.lan/internal/runes"
	live "viver.lan/internal/runner"
)

// runHere runs a command line of viver in this process.
func runHere(t *testing.T, args ...string) (code int, output string) {
	t.Helper()
	var out bytes.Buffer
	code = run(context.Background(), environment{args: args, stdout: &out, stderr: &out, executable: os.Executable,
		configDir: func() (string, error) { return t.TempDir(), nil }})
	return code, out.String()
}

func writeFile(t *testing.T, name, data string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(name), 0o755)
	if err == nil {
		err = os.WriteFile(name, []byte(data), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A rune is made, checked, shown, put on a medium and taken off again.
func TestRune(t *testing.T) {
	t.Chdir(t.TempDir())
	writeFile(t, "volume/viver/viver.toml", "")
	for _, c := range []struct {
		line string
		code int
		want string
	}{
		{"rune new web-farm", exitOK, "web-farm/rune.toml\n"},
		{"rune new web-farm", exitFailed, "file exists"},
		{"rune new Web", exitFailed, "small letters"},
		{"rune new other --kind car", exitFailed, `there is no kind "car"`},
		{"rune check web-farm", exitOK, "web-farm: sound; --image says"},
		{"rune show web-farm", exitOK, "requires  /usr/bin/python3 (package python3)"},
		{"rune show web-farm", exitOK, "role      server, wanted on one"},
		{"rune show hostname", exitOK, "/etc/hostname"},
		{"rune show nothing", exitFailed, `no built-in rune "nothing"`},
		{"rune list", exitOK, "hostname "},
		{"rune add web-farm", exitUsage, "medium"},
		{"rune add web-farm --medium volume", exitOK, "web-farm: added to volume"},
		{"rune check volume/viver/runes/web-farm", exitOK, "sound"},
		{"rune remove web-farm --medium volume", exitOK, "web-farm: removed from volume"},
		{"rune remove web-farm --medium volume", exitFailed, "there is no rune web-farm"},
		{"rune check web-farm --image volume", exitFailed, "image volume: "},
	} {
		if code, out := runHere(t, strings.Fields(c.line)...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("viver %s: exit code %d, want %d with %q:\n%s", c.line, code, c.code, c.want, out)
		}
	}
	writeFile(t, "web-farm/rune.toml", "name = \"web-farm\"\n\norder = 200\n")
	writeFile(t, "bare/rune.toml", "name = \"bare\"\n")
	writeFile(t, "bare/files/etc/hostname", "x\n")
	writeFile(t, "bare/files/etc/x.tmpl", "one\n{{ .Hostnam }}\n")
	for line, want := range map[string]string{
		"rune check web-farm":                      "rune web-farm: rune.toml:3: order: 200: want 0 to 99",
		"rune add web-farm --medium volume":        "rune web-farm: rune.toml:3: ",
		"rune check ./bare":                        "bare: files/etc/x.tmpl:2:",
		"rune check bare":                          "/etc/hostname is laid by the runes hostname and bare: that of bare stays",
		"medium build none -o x --rune ./web-farm": "rune web-farm: rune.toml:3: ",
	} {
		if code, out := runHere(t, strings.Fields(line)...); code != exitFailed || !strings.Contains(out, want) {
			t.Errorf("viver %s: exit code %d, want %q:\n%s", line, code, want, out)
		}
	}
}

func TestRuneListInJSON(t *testing.T) {
	code, out := runHere(t, "rune", "list", "-o", "json")
	var list []runes.Description
	if err := json.Unmarshal([]byte(out), &list); code != exitOK || err != nil || len(list) < 9 || list[0].Name == "" {
		t.Errorf("exit code %d, %v:\n%s", code, err, out)
	}
}

// On a node, what the boot left and what @vrune says since are one list.
func TestRunesHere(t *testing.T) {
	dir := t.TempDir()
	if _, err := runesHere(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("on a machine that is no node: %v", err)
	}
	boot := []control.RuneResult{
		{RuneOutcome: control.RuneOutcome{Rune: "farm", Outcome: "broken", Reason: "rune.toml:3: order: 200"}},
		{RuneOutcome: control.RuneOutcome{Rune: "ssh", Outcome: "applied"}, Description: "keys", Files: []string{"/root/.ssh/authorized_keys"}},
		{RuneOutcome: control.RuneOutcome{Rune: "web", Outcome: "applied"}, Description: "a farm", Files: []string{"/srv/web/index.html"}},
	}
	if err := control.WriteState(filepath.Join(dir, "runes-boot.json"), boot); err != nil {
		t.Fatal(err)
	}
	if on, err := runesHere(dir); err != nil || len(on) != 3 {
		t.Errorf("before @vrune has run: %+v, %v", on, err)
	}
	state := live.State{Held: []roles.Name{{Rune: "web", Role: "balancer"}, {Rune: "other", Role: "x"}}, Runes: []live.RuneState{
		{Name: "web", Outcome: runes.Degraded, Reason: "service balancer: it ends at once", Files: []string{"/run/web.conf"},
			Services: []live.ServiceState{{Name: "balancer", Unit: "viver-web-balancer.service", State: live.Waiting, Restarts: 3}},
			Hooks:    []live.HookState{{Moment: runes.MomentRoleGained, Role: "balancer", Reason: "exit status 1", Seconds: 0.25}}},
		{Name: "later", Outcome: runes.Applied},
	}}
	if err := control.WriteState(filepath.Join(dir, live.StateFile), state); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "hooks/web.role-gained.log"), strings.Repeat("a line\n", 20)+"no such address\n")
	on, err := runesHere(dir)
	if err != nil || len(on) != 4 {
		t.Fatalf("%+v, %v", on, err)
	}
	var list, one strings.Builder
	if err := errors.Join(writeRunes(&list, on), writeRune(&one, dir, on[2])); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"farm   broken    -         -", "rune.toml:3: order: 200\n", "ssh    applied   -         -                 -", "keys\n",
		"web    degraded  balancer  balancer waiting  role-gained balancer: exit status 1 in 0.2 s  service balancer: it ends at once\n", "later  applied"} {
		if !strings.Contains(list.String(), want) {
			t.Errorf("the list lacks %q:\n%s", want, list.String())
		}
	}
	for _, want := range []string{"role     balancer\n", "(viver-web-balancer.service) is waiting, started again 3 times\n", "file     /run/web.conf\n", "no such address\n"} {
		if !strings.Contains(one.String(), want) {
			t.Errorf("the rune lacks %q:\n%s", want, one.String())
		}
	}
	if n := strings.Count(one.String(), "a line"); n != shownOutput-1 {
		t.Errorf("%d lines of output", n)
	}
}
