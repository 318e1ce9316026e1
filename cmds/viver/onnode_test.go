package main

import (
	"bytes"
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The viver of a booted machine has the same commands as the one that builds images. Those
// that cannot do their work there say so.
func TestOnABootedMachine(t *testing.T) {
	onNode := filepath.Join(t.TempDir(), "viver")
	if out, err := exec.Command("go", "build", "-tags", "node", "-o", onNode, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	for _, parent := range [][]string{nil, {"image"}, {"medium"}, {"node"}, {"rune"}} {
		here, there := commandsOf(t, viver(t, append(parent, "--help")...)), commandsOf(t, exec.Command(onNode, append(parent, "--help")...))
		if len(here) < 2 || !slices.Equal(here, there) {
			t.Errorf("viver %v has %v, on a booted machine %v", parent, here, there)
		}
	}
	for line, want := range map[string]string{
		"image build / -o x":          "makes no images",
		"image explain x /etc":        "makes no images",
		"image profile x --memory 1":  "makes no images",
		"medium build x --rune y":     "makes no images",
		"image verify /none":          "/none is no image",
		"medium write /none /dev/sdz": "open /none",
	} {
		out, err := exec.Command(onNode, strings.Fields(line)...).CombinedOutput()
		var failed *exec.ExitError
		if !errors.As(err, &failed) || failed.ExitCode() != exitFailed || !bytes.Contains(out, []byte(want)) {
			t.Errorf("viver %s: %v, %q; want %q", line, err, out, want)
		}
	}
}

// commandsOf lists the commands that a help text names.
func commandsOf(t *testing.T, help *exec.Cmd) (names []string) {
	t.Helper()
	text, err := help.Output()
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), "Available Commands:")
	list, _, _ = strings.Cut(list, "Flags:")
	for _, m := range regexp.MustCompile(`(?m)^  (\S+) `).FindAllStringSubmatch(list, -1) {
		names = append(names, m[1])
	}
	return names
}
