// Package docpage does what a page for people says, for tests: a page that nobody
// follows is wrong one day.
package docpage

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// step is a file that is shown below its name, a block of some kind, or lines to type.
var step = regexp.MustCompile("(?ms)^(?:`([a-z/.-]+)`:\n\n)?```([a-z]*)\n(.*?)^```$|^((?:    [^\n]+\n)+)")

// Page is a page in Markdown, and how it is followed.
type Page struct {
	Text string
	// Dir is where its files are written and its commands run.
	Dir string
	// Env is added to the environment of the commands, as in exec.Cmd.
	Env []string
	// Kind is that of the blocks that are for whoever calls.
	Kind string
}

// Follow does what the page says: it writes each file that is shown below its name, runs
// each indented line, and looks for each block "text" in what the lines before it printed.
// It returns the blocks of the kind asked for, and how many steps it took in all.
func (p Page) Follow(t testing.TB) (blocks []string, steps int) {
	t.Helper()
	printed := ""
	for _, m := range step.FindAllStringSubmatch(p.Text, -1) {
		name, block, body, commands := m[1], m[2], m[3], m[4]
		steps++
		switch {
		case commands != "":
			cmd := exec.CommandContext(t.Context(), "sh", "-c", strings.ReplaceAll(commands, "\n    ", "\n"))
			cmd.Dir = p.Dir
			cmd.Env = append(os.Environ(), p.Env...)
			out, _ := cmd.CombinedOutput() // what it is to print tells whether it may fail
			printed = string(out)
		case name != "":
			path := filepath.Join(p.Dir, name)
			err := os.MkdirAll(filepath.Dir(path), 0o755)
			if err == nil {
				err = os.WriteFile(path, []byte(body), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		case block == "text":
			for line := range strings.Lines(body) {
				if !strings.Contains(printed, strings.TrimSpace(line)) {
					t.Errorf("the page shows %q, and this was printed:\n%s", line, printed)
				}
			}
		case block == p.Kind:
			blocks = append(blocks, body)
		}
	}
	return blocks, steps
}
