package testrun

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"gotest.tools/gotestsum/testjson"
)

// Report shows tests or packages as they end. testjson follows the events of
// go test -json for it, and knows which tests have failed: also those that did not
// end because something ended their process.
type Report struct {
	out  io.Writer // for people
	log  io.Writer // everything that tests print
	each bool
	left int // tests or packages, by each

	execution *testjson.Execution // empty until it is followed to its end
}

// NewReport makes a report of a selection. People read out; all that tests print
// goes to log as well.
func NewReport(s Selection, out, log io.Writer) *Report {
	r := &Report{out: out, log: log, each: s.Each, left: s.Packages, execution: new(testjson.Execution)}
	if s.Each {
		r.left = len(s.Tests)
	}
	if s.Verbose {
		r.log = io.MultiWriter(log, out)
	}
	return r
}

// Follow reads events until there are no more. stop is called when it cannot go on.
func (r *Report) Follow(events io.Reader, stop func()) (err error) {
	r.execution, err = testjson.ScanTestOutput(testjson.ScanConfig{
		Stdout: events, Handler: handler{r}, Stop: stop, IgnoreNonJSONOutputLines: true,
	})
	return err
}

// handler is what testjson calls.
type handler struct{ *Report }

// Err implements testjson.EventHandler: a line that is not an event.
func (h handler) Err(line string) error {
	_, err := fmt.Fprintln(h.log, line)
	return err
}

// Event implements testjson.EventHandler.
func (h handler) Event(e testjson.TestEvent, _ *testjson.Execution) error {
	switch {
	case e.Action == testjson.ActionOutput, e.Action == testjson.ActionBuild:
		_, err := io.WriteString(h.log, e.Output)
		return err
	case !e.Action.IsTerminal():
		return nil
	case e.PackageEvent():
		return h.endPackage(e)
	}
	return h.endTest(e)
}

func (r *Report) endTest(e testjson.TestEvent) error {
	whole := r.each && !testjson.TestName(e.Test).IsSubTest()
	if whole {
		r.left--
	}
	if whole || e.Action == testjson.ActionFail {
		return r.show(e, e.Test)
	}
	return nil
}

func (r *Report) endPackage(e testjson.TestEvent) error {
	if !r.each {
		r.left--
	}
	if e.Action == testjson.ActionFail || e.Action == testjson.ActionPass && !r.each { // "skip": it has no tests
		return r.show(e, short(e.Package))
	}
	return nil
}

// show prints one line for what has ended.
func (r *Report) show(e testjson.TestEvent, name string) error {
	word := map[testjson.Action]string{testjson.ActionPass: "ok", testjson.ActionFail: "FAIL", testjson.ActionSkip: "skip"}[e.Action]
	unit := "packages"
	if r.each {
		unit = "tests"
	}
	after := fmt.Sprintf("%6.1f s", e.Elapsed)
	if e.Elapsed < 0 {
		after = "not ended"
	}
	_, err := fmt.Fprintf(r.out, "%-4s  %-52s %9s  %3d %s left\n", word, name, after, max(r.left, 0), unit)
	return err
}

// Failed is how many tests, subtests, and packages outside of their tests have failed.
func (r *Report) Failed() int { return len(r.execution.Failed()) }

// Skipped is how many tests and subtests were skipped.
func (r *Report) Skipped() int { return len(r.execution.Skipped()) }

// Passed is how many top-level tests passed.
func (r *Report) Passed() (n int) {
	for _, name := range r.execution.Packages() {
		for _, t := range r.execution.Package(name).Passed {
			if !t.Test.IsSubTest() {
				n++
			}
		}
	}
	return n
}

// Summary shows every skip with its reason, and of each failure what it said.
func (r *Report) Summary() error {
	var text strings.Builder
	if r.Skipped() > 0 {
		fmt.Fprintln(&text, "skipped:")
	}
	for _, t := range r.execution.Skipped() {
		fmt.Fprintf(&text, "%s %s\n%s", short(t.Package), t.Test, strings.Join(said(r.execution.OutputLines(t)), ""))
	}
	for i, t := range r.execution.Failed() {
		if i == maxFailures {
			fmt.Fprintf(&text, "and %d more, see the log\n", r.Failed()-i)
			break
		}
		lines := r.execution.OutputLines(t)
		fmt.Fprintf(&text, "--- FAIL: %s %s\n%s", short(t.Package), t.Test, strings.Join(last(placed(lines), 30), ""))
		fmt.Fprintf(&text, "--- the last lines of it:\n%s", strings.Join(last(quiet(lines), 60), ""))
	}
	fmt.Fprint(&text, strings.Join(last(r.execution.Errors(), 60), "")) // of the compiler
	_, shown := io.WriteString(r.out, text.String())
	return errors.Join(shown, r.completeLog())
}

// maxFailures is how many failures a summary shows.
const maxFailures = 20

// completeLog repeats what failed tests printed, together: above it lies between the
// lines of packages that ran at the same time.
func (r *Report) completeLog() error {
	var errs []error
	for _, t := range r.execution.Failed() {
		_, err := fmt.Fprintf(r.log, "--- all lines of %s %s:\n%s", short(t.Package), t.Test, strings.Join(r.execution.OutputLines(t), ""))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func short(pkg string) string {
	_, name, ok := strings.Cut(pkg, "/")
	if !ok {
		return pkg
	}
	return name
}

func last(lines []string, n int) []string { return lines[max(0, len(lines)-n):] }
