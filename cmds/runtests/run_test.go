package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/testrun"
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
	for _, test := range list(testrun.Tier{Packages: []string{"./..."}}) {
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
