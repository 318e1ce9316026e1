package testrun

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Report follows the events of go test -json. It is not safe for concurrent use.
type Report struct {
	out  io.Writer // for people
	log  *log
	each bool
	left int // tests or packages, by each

	packages map[string]*pkg
	builds   map[string][]string // what the compiler said, by package
	failed   []*test
	skipped  []*test
	broken   []string // what failed outside of tests, with its lines
	passed   int
}

// event is what go test -json prints: cmd/test2json and cmd/go/internal/help
// describe it.
type event struct {
	Action, Package, ImportPath, Test, Output, FailedBuild string
	Elapsed                                                float64 // seconds
}

type pkg struct {
	tests  map[string]*test // that run
	lines  []string         // printed outside of tests
	failed bool             // one of its tests has
}

type test struct {
	pkg, name string
	lines     []string
	ended     bool
}

// kept bounds the lines that are kept of one test; the log has all.
const kept = 20000

// NewReport makes a report of a selection. People read out; all that tests print
// goes to log as well.
func NewReport(s Selection, out, all io.Writer) *Report {
	r := &Report{out: out, each: s.Each, left: s.Packages, packages: map[string]*pkg{}, builds: map[string][]string{}}
	if s.Each {
		r.left = len(s.Tests)
	}
	if s.Verbose {
		all = io.MultiWriter(all, out)
	}
	r.log = &log{out: all, waiting: map[string][]string{}}
	return r
}

// Follow reads events until there are no more.
func (r *Report) Follow(events io.Reader) error {
	lines := bufio.NewReader(events)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			r.line(line)
		}
		if errors.Is(err, io.EOF) {
			r.end()
			return r.log.err
		}
		if err != nil {
			return err
		}
	}
}

// line takes one line, which the go command does not always print as an event.
func (r *Report) line(line []byte) {
	var e event
	if json.Unmarshal(line, &e) != nil || e.Action == "" {
		r.log.write("", string(line))
		return
	}
	r.apply(e)
}

func (r *Report) apply(e event) {
	switch e.Action {
	case "build-output":
		r.builds[e.ImportPath] = append(r.builds[e.ImportPath], e.Output)
		r.log.write("", e.Output)
	case "output":
		r.output(e)
	case "run":
		r.test(e)
	case "pass", "fail", "skip":
		if e.Test != "" {
			t := r.test(e)
			t.ended = true
			r.endTest(t, e.Action, e.Elapsed)
		} else if e.Package != "" {
			r.endPackage(e)
		}
	}
}

func (r *Report) pkg(name string) *pkg {
	p := r.packages[name]
	if p == nil {
		p = &pkg{tests: map[string]*test{}}
		r.packages[name] = p
	}
	return p
}

func (r *Report) test(e event) *test {
	p := r.pkg(e.Package)
	t := p.tests[e.Test]
	if t == nil {
		t = &test{pkg: e.Package, name: e.Test}
		p.tests[e.Test] = t
	}
	return t
}

func (r *Report) output(e event) {
	r.log.write(e.Package, e.Output)
	lines := &r.pkg(e.Package).lines
	if e.Test != "" {
		lines = &r.test(e).lines
	}
	if *lines = append(*lines, e.Output); len(*lines) > kept {
		*lines = append([]string(nil), (*lines)[kept/2:]...)
	}
}

func (r *Report) endTest(t *test, action string, seconds float64) {
	top := !strings.Contains(t.name, "/")
	switch action {
	case "fail":
		r.pkg(t.pkg).failed = true
		r.failed = append(r.failed, t)
	case "skip":
		r.skipped = append(r.skipped, t)
	case "pass":
		t.lines = nil
		if top {
			r.passed++
		}
	}
	if top && r.each {
		r.left--
	}
	if top && r.each || action == "fail" {
		r.show(action, t.name, seconds)
	}
}

// endPackage also finds the tests that did not end, because something ended their
// process: they have failed, whatever they were about to say.
func (r *Report) endPackage(e event) {
	p := r.pkg(e.Package)
	for _, name := range slices.Sorted(maps.Keys(p.tests)) {
		if t := p.tests[name]; !t.ended {
			r.endTest(t, "fail", 0)
		}
	}
	if !r.each {
		r.left--
	}
	if !r.each && e.Action == "pass" || e.Action == "fail" { // "skip": it has no tests
		r.show(e.Action, short(e.Package), e.Elapsed)
	}
	if e.Action == "fail" && !p.failed {
		lines := p.lines
		if said := r.builds[e.FailedBuild]; len(said) > 0 {
			lines = said
			delete(r.builds, e.FailedBuild) // for the first that needs it
		}
		r.broken = append(r.broken, short(e.Package)+"\n"+strings.Join(last(lines, 60), ""))
	}
	r.log.end(e.Package)
	delete(r.packages, e.Package)
}

// end is when go test says no more. A package that is not over has failed.
func (r *Report) end() {
	for name := range r.packages {
		r.endPackage(event{Action: "fail", Package: name})
	}
	r.log.flush()
}

// show prints one line for what has ended.
func (r *Report) show(action, name string, seconds float64) {
	word := map[string]string{"pass": "ok", "fail": "FAIL", "skip": "skip"}[action]
	unit := "packages"
	if r.each {
		unit = "tests"
	}
	fmt.Fprintf(r.out, "%-4s  %-52s %6.1f s  %3d %s left\n", word, name, seconds, max(r.left, 0), unit)
}

func short(pkg string) string {
	_, name, ok := strings.Cut(pkg, "/")
	if !ok {
		return pkg
	}
	return name
}

func last(lines []string, n int) []string { return lines[max(0, len(lines)-n):] }
