package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/testrun"
	"viver.lan/internal/testtable"
)

// atRoot lets the test run in the module's directory, where the packages are.
func atRoot(t *testing.T) {
	t.Helper()
	t.Chdir(filepath.Join("..", ".."))
	if _, err := os.Stat("go.mod"); err != nil {
		t.Fatal(err)
	}
}

// A test in no tier would never run.
func TestEachTestIsInATier(t *testing.T) {
	atRoot(t)
	list := func(tier testrun.Tier) []string {
		s, err := testrun.Select(t.Context(), ".", tier, testrun.Request{})
		if err != nil {
			t.Fatal(err)
		}
		return s.Tests
	}
	in := map[string][]string{}
	for _, tier := range tiers(true) {
		if tier.Name == "race" { // some of unit's
			continue
		}
		for _, test := range list(tier) {
			in[test] = append(in[test], tier.Name)
		}
	}
	// TestEncryptedDisks runs those that are left out, and counts them.
	for _, test := range list(testrun.Tier{Packages: []string{"./..."}, Except: "^TestDeviceMapper"}) {
		if len(in[test]) != 1 {
			t.Errorf("%s is in the tiers %q, want one", test, in[test])
		}
	}
}

func TestWhatIsWrongIsSaidBeforeAnythingRuns(t *testing.T) {
	atRoot(t)
	for words, want := range map[string]string{
		"":                            "which tier?",
		"all":                         "no tier all",
		"unit -run TestNoSuchThing":   "called TestNoSuchThing",
		"qemu -run TestNetnsHostKeys": "called TestNetnsHostKeys",
		"netns TestEachTestIsInATier": "not in the tier netns",
		"unit ./internal/nowhere":     "neither a package nor",
	} {
		err := run(t.Context(), append([]string{"-check"}, strings.Fields(words)...), os.Stdout, os.Stderr)
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, testrun.ErrFailed) {
			t.Errorf("%q: %v, want %q", words, err, want)
		}
	}
	var out bytes.Buffer
	if err := run(t.Context(), []string{"qemu", "-list", "-run", "TestFullSecondsToKernel"}, &out, os.Stderr); err != nil || !strings.HasSuffix(out.String(), "qemu-tests TestFullSecondsToKernel\n") {
		t.Errorf("a long test by its name: %q, %v", &out, err)
	}
}

func TestNothingIsHidden(t *testing.T) {
	full := errors.New("no space left on device")
	for _, c := range []struct {
		err  error
		code int
		want string
	}{
		{nil, 0, ""},
		{testrun.ErrFailed, 1, testrun.ErrFailed.Error()},
		{errors.Join(testrun.ErrFailed, full), 1, full.Error()},
		{full, 2, full.Error()},
	} {
		var said bytes.Buffer
		if code := exitCode(c.err, &said); code != c.code || !strings.Contains(said.String(), c.want) {
			t.Errorf("%v: exit code %d, %q", c.err, code, &said)
		}
	}
}

// skipping is a module with a test that is skipped, and leaves a table before.
var skipping = map[string]string{
	"go.mod": "module m.lan\n\ngo 1.26\n",
	"a_test.go": `package a
import ("os"; "testing")
func TestNoHardware(t *testing.T) {
	if err := os.WriteFile(os.Getenv("` + testtable.DirEnv + `")+"/found` + testtable.Suffix + `", []byte("| nothing |\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Skip("no hardware")
}
`,
}

func TestASkipFailsInCI(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, text := range skipping {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("GOFLAGS", "")
	chosen, err := testrun.Select(t.Context(), ".", testrun.Tier{Name: "unit", Packages: []string{"."}}, testrun.Request{})
	if err != nil {
		t.Fatal(err)
	}
	for ci, want := range map[string]error{"": nil, "true": testrun.ErrFailed} {
		t.Setenv("CI", ci)
		var out bytes.Buffer
		if err := runTier(t.Context(), "unit", "logs", chosen, &out, os.Stderr); !errors.Is(err, want) {
			t.Errorf("with CI=%q: %v, want %v\n%s", ci, err, want, &out)
		}
		for _, part := range []string{"TestNoHardware", "no hardware", "found:\n| nothing |\n", "0 passed, 0 failed, 1 skipped"} {
			if !strings.Contains(out.String(), part) {
				t.Errorf("%q does not say %q", &out, part)
			}
		}
		if log, err := os.ReadFile("logs/unit.log"); err != nil || !strings.Contains(string(log), "--- SKIP: TestNoHardware") {
			t.Errorf("the log: %q, %v", log, err)
		}
	}
}
