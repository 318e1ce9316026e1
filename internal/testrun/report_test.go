package testrun

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// project has a package for each way in which tests end.
var project = map[string]string{
	"go.mod": "module m.lan\n\ngo 1.26\n",
	"good/good_test.go": `package good
import "testing"
func TestGood(t *testing.T) { t.Log("goodness") }
func TestLeftOut(t *testing.T) { t.Skip("no hardware") }
`,
	"bad/bad_test.go": `package bad
import "testing"
func TestBad(t *testing.T) {
	t.Run("part", func(t *testing.T) { t.Errorf("the cause\nin two lines") })
}
`,
	"worse/worse_test.go": `package worse
import ("os"; "testing")
func TestEndsItsProcess(t *testing.T) { t.Log("about to go"); os.Exit(3) }
`,
	"broken/broken_test.go": "package broken\nimport \"testing\"\nfunc TestBroken(t *testing.T) { undefinedName() }\n",
}

func writeProject(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range project {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// runProject runs packages of the project, and returns what people see and the log.
func runProject(t *testing.T, packages ...string) (r *Report, out, log string, err error) {
	t.Helper()
	dir := writeProject(t)
	s, err := Select(t.Context(), dir, Tier{Name: "unit", Flags: []string{"-p=1"}, Each: true}, Request{Packages: packages})
	if err != nil {
		t.Fatal(err)
	}
	var people, all, errs bytes.Buffer
	r = NewReport(s, &people, &all)
	err = Run(t.Context(), dir, s, []string{"GOFLAGS="}, r, &errs)
	if errs.Len() > 0 {
		t.Logf("beside its events the go command prints:\n%s", errs.Bytes())
	}
	if err := r.Summary(); err != nil {
		t.Error(err)
	}
	return r, people.String(), all.String(), err
}

// Go's own command decides, so it is asked.
func TestNoFailureIsHidden(t *testing.T) {
	r, out, log, err := runProject(t, "./...")
	if !errors.Is(err, ErrFailed) {
		t.Errorf("the run returns %v", err)
	}
	if r.Passed() != 1 || r.Skipped() != 1 || r.Failed() != 4 { // TestBad, its part, TestEndsItsProcess, broken
		t.Errorf("%d passed, %d skipped, %d failed", r.Passed(), r.Skipped(), r.Failed())
	}
	for _, want := range []string{
		"ok    TestGood", "skip  TestLeftOut", "no hardware", "FAIL  TestBad/part", "the cause", "in two lines",
		"FAIL  TestEndsItsProcess", "about to go", "not ended", "undefinedName",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("people do not see %q", want)
		}
	}
	if strings.Contains(out, "goodness") || !strings.Contains(log, "goodness") {
		t.Error("what a test prints that passes is for the log")
	}
	if t.Failed() {
		t.Logf("people see:\n%s\nthe log:\n%s", out, log)
	}
}

func TestAllGoodIsNoError(t *testing.T) {
	if _, out, _, err := runProject(t, "./good"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// A stream that ends in the middle, as when go test is killed, has failed.
func TestWhatDidNotEndHasFailed(t *testing.T) {
	var out, log bytes.Buffer
	r := NewReport(Selection{Each: true, Tests: []string{"a TestA", "a TestB"}}, &out, &log)
	if err := r.Follow(strings.NewReader(`{"Action":"start","Package":"a"}
{"Action":"run","Package":"a","Test":"TestA"}
{"Action":"pass","Package":"a","Test":"TestA","Elapsed":1.5}
{"Action":"run","Package":"a","Test":"TestB"}
`), t.FailNow); err != nil {
		t.Fatal(err)
	}
	if r.Failed() != 1 || r.Passed() != 1 {
		t.Errorf("%d failed, %d passed", r.Failed(), r.Passed())
	}
	want := fmt.Sprintf("ok    %-52s     1.5 s    1 tests left\n", "TestA")
	if !strings.HasPrefix(out.String(), want) {
		t.Errorf("%q, want %q first", out.String(), want)
	}
}

func TestPlacedLines(t *testing.T) {
	lines := strings.SplitAfter(`=== RUN   TestA
level=INFO of no use
    a_test.go:7: in its own namespaces:
        === RUN   TestA
            b_test.go:9: the cause
                goes on
        level=INFO of no use
`, "\n")
	got := strings.Join(placed(lines), "")
	for want, is := range map[string]bool{"a_test.go:7": true, "the cause": true, "goes on": true, "of no use": false} {
		if strings.Contains(got, want) != is {
			t.Errorf("%q is shown: %t, want %t\n%s", want, !is, is, got)
		}
	}
}

func TestTablesAreShownWithEachRowOnce(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "boots.md"), []byte("| a |\n|---|\n| 1 |\n| 1 |\n| 0 |\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := Tables(&out, dir, ".md"); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "boots:\n| a |\n|---|\n| 1 |\n| 0 |\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
