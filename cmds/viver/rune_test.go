package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/control"
	"viver.lan/internal/runes"
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
		{"rune show web-farm", exitOK, "requires  /usr/bin/python3 (package python3-minimal)"},
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
	writeFile(t, "bare/files/etc/x.tmpl", "one\n{{ .Hostnam }}\n")
	for line, want := range map[string]string{
		"rune check web-farm":                      "rune web-farm: rune.toml:3: order: 200: want 0 to 99",
		"rune add web-farm --medium volume":        "rune web-farm: rune.toml:3: ",
		"rune check ./bare":                        "bare: files/etc/x.tmpl:2:",
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

func TestRuneResultsAreShown(t *testing.T) {
	var out strings.Builder
	results := []control.RuneResult{
		{RuneOutcome: control.RuneOutcome{Rune: "ssh", Outcome: "applied"}, Description: "keys", Files: []string{"/root/.ssh/authorized_keys"}},
		{RuneOutcome: control.RuneOutcome{Outcome: "broken", Reason: "the archive is cut short"}},
	}
	if err := writeResults(&out, results); err != nil || !strings.Contains(out.String(), "ssh   applied  1      keys\n-     broken   0      the archive is cut short\n") {
		t.Errorf("%v:\n%s", err, out.String())
	}
	out.Reset()
	if err := writeResult(&out, results[0]); err != nil || !strings.Contains(out.String(), "outcome  applied\nfile     /root/.ssh/authorized_keys\n") {
		t.Errorf("%v:\n%s", err, out.String())
	}
}
