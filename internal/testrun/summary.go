package testrun

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Failed is how many tests, parts of tests, and packages outside of their tests
// have failed.
func (r *Report) Failed() int { return len(r.failed) + len(r.broken) }

// Skipped is how many tests and parts of tests were skipped.
func (r *Report) Skipped() int { return len(r.skipped) }

// Passed is how many top-level tests passed.
func (r *Report) Passed() int { return r.passed }

// Summary shows every skip with its reason, and of each failure what it said.
func (r *Report) Summary() {
	if len(r.skipped) > 0 {
		fmt.Fprintln(r.out, "skipped:")
	}
	for _, t := range r.skipped {
		fmt.Fprintf(r.out, "%s %s\n%s", short(t.pkg), t.name, strings.Join(said(t.lines), ""))
	}
	for i, t := range r.failed {
		if i == 20 {
			fmt.Fprintf(r.out, "and %d more, see the log\n", len(r.failed)-i)
			break
		}
		r.failure(t)
	}
	for _, text := range r.broken {
		fmt.Fprintf(r.out, "--- FAIL: %s", text)
	}
}

// failure shows what a test said about itself, and the last of what was printed
// meanwhile without what is for debugging.
func (r *Report) failure(t *test) {
	fmt.Fprintf(r.out, "--- FAIL: %s %s\n%s", short(t.pkg), t.name, strings.Join(last(placed(t.lines), 30), ""))
	if !t.ended {
		fmt.Fprintln(r.out, "it did not end")
	}
	fmt.Fprintf(r.out, "--- the last lines of %s:\n%s", t.name, strings.Join(last(quiet(t.lines), 60), ""))
}

// place is how testing begins a line of a test's own. A test that ran in namespaces
// has its lines further in.
var place = regexp.MustCompile(`^( *)[A-Za-z0-9_]+\.go:[0-9]+: `)

// placed are the lines that begin with a place in the source, each with up to 8
// that continue it.
func placed(lines []string) []string {
	var found []string
	at, more := 0, 0
	for _, line := range lines {
		indent := len(line) - len(strings.TrimLeft(line, " "))
		if place.MatchString(line) {
			found, at, more = append(found, line), indent, 8
			continue
		}
		if more--; more >= 0 && (indent > at || strings.TrimSpace(line) == "") {
			found = append(found, line)
			continue
		}
		more = 0
	}
	return found
}

// said leaves out what testing prints about a test's begin and end.
func said(lines []string) []string {
	var own []string
	for _, line := range lines {
		text := strings.TrimLeft(line, " ")
		if !strings.HasPrefix(text, "=== ") && !strings.HasPrefix(text, "--- ") {
			own = append(own, line)
		}
	}
	return own
}

func quiet(lines []string) []string {
	var some []string
	for _, line := range lines {
		if !strings.Contains(line, "level=DEBUG") {
			some = append(some, line)
		}
	}
	return some
}

// Tables shows the tables that tests left in a directory. A row that is there
// already, as from a test that ran twice, is left out.
func Tables(out io.Writer, dir, suffix string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		return err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s:\n", strings.TrimSuffix(filepath.Base(file), suffix))
		shown := map[string]bool{}
		for line := range strings.Lines(string(text)) {
			if !shown[line] {
				io.WriteString(out, line)
			}
			shown[line] = true
		}
	}
	return nil
}
