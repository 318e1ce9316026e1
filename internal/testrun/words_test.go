package testrun

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParseTakesWhatPeopleType(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"internal/boothost", "cmds/vfield", "qemu-tests/harness"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		words string
		want  Request
	}{
		{"", Request{}},
		{"-run Storm", Request{Run: "Storm"}},
		{"--run=Storm -v", Request{Run: "Storm", Verbose: true}},
		{"TestNetnsBootStorm", Request{Run: "TestNetnsBootStorm"}},
		{"TestA/with_parts FuzzB", Request{Run: "TestA/with_parts|FuzzB"}},
		{"boothost", Request{Packages: []string{"./internal/boothost"}}},
		{"vfield -run Storm", Request{Run: "Storm", Packages: []string{"./cmds/vfield"}}},
		{"-run Storm ./internal/boothost/", Request{Run: "Storm", Packages: []string{"./internal/boothost"}}},
		{"internal/...", Request{Packages: []string{"./internal/..."}}},
		{"qemu-tests/harness -list", Request{Packages: []string{"./qemu-tests/harness"}, List: true}},
		{"-race -timeout 5m -skip TestA -count=3", Request{Skip: "TestA", Flags: []string{"-race", "-timeout=5m", "-count=3"}}},
	} {
		got, err := Parse(root, strings.Fields(c.words))
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%q: %+v, %v; want %+v", c.words, got, err, c.want)
		}
	}
	for _, words := range []string{"-run", "nowhere", "../boothost/nowhere", "Testify"} {
		if got, err := Parse(root, strings.Fields(words)); err == nil {
			t.Errorf("%q is taken as %+v", words, got)
		}
	}
}

func TestAlternatives(t *testing.T) {
	for pattern, want := range map[string][]string{
		"TestA":          {"TestA"},
		"TestA/x|TestB":  {"TestA", "TestB"},
		"Test(A|B)/c":    {"Test(A|B)"},
		`Test[/|]\|/x|C`: {`Test[/|]\|`, "C"},
	} {
		if got := alternatives(pattern); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", pattern, got, want)
		}
	}
}

func TestNamesIn(t *testing.T) {
	const source = `package a
func TestMain(m *testing.M) {}
func TestA(t *testing.T) {}
func Testify() {}
func (x y) TestB(t *testing.T) {}
func FuzzC(f *testing.F) {}
func helper(t *testing.T) {}
/*
func TestD(t *testing.T) {}
*/
func Example() {}
`
	if got, want := namesIn([]byte(source)), []string{"TestA", "FuzzC", "Example"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestChoose(t *testing.T) {
	found := []names{
		{"a", []string{"TestOne", "TestNetnsOne"}},
		{"b", []string{"TestTwo", "TestNetnsTwo"}},
		{"c", nil},
	}
	unit := Tier{Name: "unit", Except: "^TestNetns", Flags: []string{"-timeout=10m"}}
	netns := Tier{Name: "netns", Only: "^TestNetns", Each: true}
	for _, c := range []struct {
		tier  Tier
		r     Request
		args  string
		tests string
	}{
		{unit, Request{}, "-timeout=10m -skip=^TestNetns a b c", "a TestOne,b TestTwo"},
		{netns, Request{}, "-run=^TestNetns a b", "a TestNetnsOne,b TestNetnsTwo"},
		{unit, Request{Run: "One"}, "-timeout=10m -run=One -skip=^(TestNetnsOne)$ a", "a TestOne"},
		{netns, Request{Run: "One/part", Flags: []string{"-race"}}, "-run=One/part -skip=^(TestOne)$ -race a", "a TestNetnsOne"},
		{netns, Request{Run: "NetnsOne|NetnsTwo"}, "-run=NetnsOne|NetnsTwo a b", "a TestNetnsOne,b TestNetnsTwo"},
		{unit, Request{Skip: "Two|One/part"}, "-timeout=10m -skip=Two|One/part|^TestNetns a b c", "a TestOne"},
	} {
		got, err := choose(found, c.tier, c.r)
		if err != nil || strings.Join(got.Args, " ") != c.args || strings.Join(got.Tests, ",") != c.tests {
			t.Errorf("%s %+v: %q, %q, %v; want %q, %q", c.tier.Name, c.r, got.Args, got.Tests, err, c.args, c.tests)
		}
	}
	if _, err := choose(found, netns, Request{Run: "netnsone"}); err == nil || !strings.HasSuffix(err.Error(), "there is TestNetnsOne") {
		t.Errorf("for a name in other letters: %v", err)
	}
	for _, r := range []Request{{Run: "Three"}, {Run: "^TestOne"}, {Run: "["}, {Skip: "."}} {
		if got, err := choose(found, netns, r); err == nil {
			t.Errorf("%+v: %+v, want an error", r, got)
		}
	}
}
