package testrun

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Tier is one of the tiers of tests.
type Tier struct {
	Name     string
	Packages []string // for the go command
	Without  []string // packages below the module that are left out all the same
	Only     string   // pattern of top-level names; "": all
	Except   string   // pattern of those that are not of this tier; "": none
	Flags    []string // for go test
	Each     bool     // show each test, not each package
}

// Selection is what go test is asked to run.
type Selection struct {
	Args     []string // for go test
	Packages int
	Tests    []string // top-level, each with its package
	Each     bool
	Verbose  bool
}

// names are the top-level tests of a package.
type names struct {
	pkg   string
	tests []string
}

// topLevel are the names that go test looks for.
var topLevel = regexp.MustCompile(`^(?:Test|Fuzz|Example)(?:[^\p{Ll}].*)?$`)

// Select finds out which tests of the tier are asked for. It is an error if there
// are none.
func Select(ctx context.Context, root string, tier Tier, r Request) (Selection, error) {
	patterns := r.Packages
	if len(patterns) == 0 {
		patterns = tier.Packages
	}
	found, err := list(ctx, root, patterns)
	if err != nil {
		return Selection{}, err
	}
	return choose(tier.leaveOut(found), tier, r)
}

func (t Tier) leaveOut(found []names) []names {
	return slices.DeleteFunc(found, func(n names) bool { return slices.Contains(t.Without, short(n.pkg)) })
}

// choose does so among the tests that were found.
func choose(found []names, tier Tier, r Request) (Selection, error) {
	inTier, err := matcher(tier.Only, tier.Except)
	if err != nil {
		return Selection{}, err
	}
	asked, err := matcher(r.Run, wholeTests(r.Skip))
	if err != nil {
		return Selection{}, err
	}
	s := Selection{Each: tier.Each || r.Run != "", Verbose: r.Verbose}
	var packages, others []string
	for _, n := range found {
		before := len(s.Tests)
		for _, test := range n.tests {
			switch {
			case !asked(test):
			case inTier(test):
				s.Tests = append(s.Tests, n.pkg+" "+test)
			default:
				others = append(others, test)
			}
		}
		// A package with no test is compiled with the others.
		if len(s.Tests) > before || r.Run == "" && tier.Only == "" {
			packages = append(packages, n.pkg)
		}
	}
	if len(s.Tests) == 0 {
		return Selection{}, nothing(found, tier, r, others)
	}
	s.Packages = len(packages)
	s.Args = append(slices.Clone(tier.Flags), r.patterns(tier, others)...)
	s.Args = append(append(s.Args, r.Flags...), packages...)
	return s, nil
}

// patterns are the flags for go test. A pattern of the user's may match tests of
// other tiers; those are skipped by their names.
func (r Request) patterns(tier Tier, others []string) []string {
	run, skip := r.Run, r.Skip
	switch {
	case run == "":
		run, skip = tier.Only, either(skip, tier.Except)
	case len(others) > 0:
		slices.Sort(others)
		skip = either(skip, "^("+strings.Join(slices.Compact(others), "|")+")$")
	}
	var flags []string
	if run != "" {
		flags = append(flags, "-run="+run)
	}
	if skip != "" {
		flags = append(flags, "-skip="+skip)
	}
	return flags
}

// nothing says why nothing would run, and what may have been meant.
func nothing(found []names, tier Tier, r Request, others []string) error {
	if len(others) > 0 {
		return fmt.Errorf("%s is not in the tier %s", strings.Join(others, ", "), tier.Name)
	}
	if r.Run == "" {
		return fmt.Errorf("these packages have no test of the tier %s", tier.Name)
	}
	var similar []string
	for _, n := range found {
		for _, test := range n.tests {
			if strings.Contains(strings.ToLower(test), strings.ToLower(r.Run)) {
				similar = append(similar, test)
			}
		}
	}
	if len(similar) > 0 {
		return fmt.Errorf("no test of the tier %s is called %s; there is %s", tier.Name, r.Run, strings.Join(similar, ", "))
	}
	return fmt.Errorf("no test of the tier %s is called %s; -list shows their names", tier.Name, r.Run)
}

// matcher tells which top-level names are meant by two patterns. An empty one says
// nothing.
func matcher(run, skip string) (func(name string) bool, error) {
	yes, err := expressions(run)
	if err != nil {
		return nil, err
	}
	no, err := expressions(skip)
	if err != nil {
		return nil, err
	}
	matches := func(all []*regexp.Regexp, name string) bool {
		return slices.ContainsFunc(all, func(re *regexp.Regexp) bool { return re.MatchString(name) })
	}
	return func(name string) bool {
		return (len(yes) == 0 || matches(yes, name)) && !matches(no, name)
	}, nil
}

func expressions(pattern string) ([]*regexp.Regexp, error) {
	if pattern == "" {
		return nil, nil
	}
	var all []*regexp.Regexp
	for _, top := range alternatives(pattern) {
		re, err := regexp.Compile(top)
		if err != nil {
			return nil, fmt.Errorf("pattern %s: %w", pattern, err)
		}
		all = append(all, re)
	}
	return all, nil
}

// wholeTests leaves of a pattern what skips top-level tests and not only parts.
func wholeTests(skip string) string {
	var whole []string
	for _, one := range split(skip, '|') {
		if len(split(one, '/')) == 1 {
			whole = append(whole, one)
		}
	}
	return strings.Join(whole, "|")
}

// list asks the go command for packages, and reads the names of their tests.
func list(ctx context.Context, root string, patterns []string) ([]names, error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-json=ImportPath,Dir,TestGoFiles,XTestGoFiles"}, patterns...)...)
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, stderr.Bytes())
	}
	var found []names
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath, Dir           string
			TestGoFiles, XTestGoFiles []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return found, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		n := names{pkg: p.ImportPath}
		for _, file := range append(p.TestGoFiles, p.XTestGoFiles...) {
			source, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				return nil, err
			}
			n.tests = append(n.tests, namesIn(source)...)
		}
		found = append(found, n)
	}
}

// namesIn are the top-level tests that a file declares. What does not compile is
// go test's to report.
func namesIn(source []byte) []string {
	file, _ := parser.ParseFile(token.NewFileSet(), "", source, parser.SkipObjectResolution)
	if file == nil {
		return nil
	}
	var tests []string
	for _, d := range file.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if ok && fn.Recv == nil && topLevel.MatchString(fn.Name.Name) && fn.Name.Name != "TestMain" {
			tests = append(tests, fn.Name.Name)
		}
	}
	return tests
}
