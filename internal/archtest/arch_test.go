package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const module = "viver.lan/"

// sameFloor are the exceptions, each with its reason.
var sameFloor = map[string]string{
	"internal/bootnet -> internal/packet":                       "a link, and the frames that it carries",
	"internal/swarm -> internal/swarm/wire":                     "the wire's bytes, apart from its sockets",
	"internal/swarm -> internal/exchange":                       "the decisions, apart from connections and disks",
	"internal/exchange -> internal/swarm/wire":                  "messages, apart from connections",
	"internal/nics -> internal/newc":                            "a table, and the archive that it is in",
	"internal/imagedir -> internal/description":                 "what describes an image, apart from its payload",
	"internal/sim -> internal/exchange":                         "it runs what nodes run",
	"internal/sim -> internal/swarm/wire":                       "the messages that nodes exchange",
	"internal/imagebuild/imagebuildtest -> internal/imagebuild": "it makes images, for tests",
	"internal/machine/machinetest -> internal/machine":          "a fake of the same seam",
	"internal/netbed/netbedtest -> internal/netbed":             "the same bed, for tests",
}

type file struct {
	dir, name string
	set       *token.FileSet
	ast       *ast.File
}

// sources returns every Go file of the module, parsed.
func sources(t *testing.T) []file {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	var files []file
	set := token.NewFileSet()
	err = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, p)
		if d.IsDir() {
			if rel == ".git" || rel == "images/out" || rel == "qemu-tests/out" || d.Name() == "testdata" {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") {
			return nil
		}
		parsed, err := parser.ParseFile(set, p, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		files = append(files, file{dir: filepath.ToSlash(filepath.Dir(rel)), name: d.Name(), set: set, ast: parsed})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 50 {
		t.Fatalf("found %d Go files below %s; the rules would hold for nothing", len(files), root)
	}
	return files
}

func (f file) isTest() bool { return strings.HasSuffix(f.name, "_test.go") }

func TestImportsPointDown(t *testing.T) {
	floors := floorsOfPage(t)
	for _, f := range sources(t) {
		if f.isTest() || strings.HasPrefix(f.dir, "qemu-tests") {
			continue
		}
		floor, ok := floors[f.dir]
		if !ok || floor == beside {
			t.Errorf("%s stands on no floor: say in %s, section Packages, on which", f.dir, architecture)
			continue
		}
		for _, spec := range f.ast.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			target, ours := strings.CutPrefix(p, module)
			if !ours || sameFloor[f.dir+" -> "+target] != "" {
				continue
			}
			if strings.HasPrefix(target, "qemu-tests") {
				t.Errorf("%s/%s imports %s: the product does not know its tests", f.dir, f.name, target)
			}
			if floors[target] >= floor {
				t.Errorf("%s/%s (floor %d) imports %s (floor %d): imports point strictly down, so that a package can be read without those above it", f.dir, f.name, floor, target, floors[target])
			}
		}
	}
}

func TestEachPackageExplainsItselfOnce(t *testing.T) {
	comments := map[string][]string{}
	for _, f := range sources(t) {
		if f.isTest() {
			continue
		}
		if comments[f.dir] == nil {
			comments[f.dir] = []string{}
		}
		if f.ast.Doc != nil {
			comments[f.dir] = append(comments[f.dir], f.name)
		}
	}
	for dir, files := range comments {
		if len(files) != 1 {
			t.Errorf("%s has its package comment in %v: want it in exactly one file", dir, files)
		}
	}
}

func TestWhatBelongsToProgramsStaysThere(t *testing.T) {
	for _, f := range sources(t) {
		if f.isTest() {
			continue
		}
		program := f.ast.Name.Name == "main"
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				if n.Name.Name == "init" && n.Recv == nil {
					t.Errorf("%s/%s has an init function: work done at import cannot be ordered, tested or left out", f.dir, f.name)
				}
			case *ast.SelectorExpr:
				pkg, ok := n.X.(*ast.Ident)
				if !ok || program {
					return true
				}
				call := pkg.Name + "." + n.Sel.Name
				switch call {
				case "os.Exit", "log.Fatal", "log.Fatalf", "log.Panic":
					t.Errorf("%s/%s calls %s: a library returns its error, the program decides", f.dir, f.name, call)
				}
			}
			return true
		})
	}
}

// testNames lists the names of all functions in test files.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names := map[string]bool{}
	for _, f := range sources(t) {
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && f.isTest() {
				names[fn.Name.Name] = true
			}
		}
	}
	return names
}

// readmeCommands says what proves each command of README: a test, or a command
// that people and CI run as it stands.
var readmeCommands = map[string]string{
	"./build.sh demo":                 "itself",
	"./build.sh test":                 "CI runs it",
	"./build.sh iso":                  "./build.sh demo makes it",
	"./build.sh image cluster":        "TestFullCluster",
	"./build.sh image desktop":        "TestFullDesktop",
	"./build.sh bench boot":           "itself",
	"./build.sh bench quick":          "TestNetnsMeasuresASmallFile",
	"./build.sh deb":                  "./build.sh test full tries it out",
	"./build.sh sim":                  "TestAHundredNodes",
	"./build.sh fuzz":                 "itself",
	"./build.sh qemu":                 "TestOrdinaryUserBuildsAndBoots",
	"viver image build /":             "TestRunningSystemBecomesAStick",
	"viver image build /srv/lab-root": "TestOrdinaryUserBuildsAndBoots",
	"viver medium build":              "TestRunningSystemBecomesAStick",
	"viver medium write":              "TestRunningSystemBecomesAStick",
	"viver serve":                     "TestNetnsServe",
	"viver rune list":                 "TestRunesHere",
	"viver role list":                 "TestRoleList",
	"vfield --listen":                 "TestNetnsDocs",
	"nbdcopy":                         "TestNetnsDocs",
}

// A command that nothing runs is one that does not work.
func TestREADMECommandsAreProven(t *testing.T) {
	page, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	exist, used := testNames(t), map[string]bool{}
	for _, command := range regexp.MustCompile(`(?m)^    ((?:\./build\.sh|viver|vfield|nbd\w+) .*)$`).FindAllStringSubmatch(string(page), -1) {
		proof, longest := "", ""
		for prefix, by := range readmeCommands {
			if strings.HasPrefix(command[1]+" ", prefix+" ") && len(prefix) > len(longest) {
				proof, longest = by, prefix
			}
		}
		used[longest] = true
		if proof == "" || strings.HasPrefix(proof, "Test") && !exist[proof] {
			t.Errorf("README's %q is proven by %q: no test runs it", command[1], proof)
		}
	}
	for prefix := range readmeCommands {
		if !used[prefix] {
			t.Errorf("README does not say %q any more", prefix)
		}
	}
}

// The page about faults promises tests; they exist.
func TestFaultsPageNamesTests(t *testing.T) {
	page, err := os.ReadFile("../../docs/faults.md")
	if err != nil {
		t.Fatal(err)
	}
	exist := testNames(t)
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w+)`").FindAllStringSubmatch(string(page), -1)
	if len(named) < 20 {
		t.Errorf("the page names %d tests", len(named))
	}
	for _, n := range named {
		if !exist[n[1]] {
			t.Errorf("docs/faults.md promises %s: there is no such test", n[1])
		}
	}
}

// wallClock are the packages that may ask what day it is, with the reason.
var wallClock = map[string]string{
	"internal/upper":       "when a file was written, for people",
	"internal/imagebuild":  "an image carries a date",
	"internal/imagetree":   "files carry dates",
	"internal/rootfs":      "files carry dates",
	"internal/bootfiles":   "a kernel's file carries a date",
	"internal/bootwork":    "systemd compares the dates of files",
	"internal/blockdaemon": "what a node says after a restart is newer than what it said before",
	"internal/sparsetar":   "archives carry dates",
	"cmds/viver":           "an override counts that is newer, also when it was made on another computer",
}

// A machine boots with any date at all, and somebody sets it later. What waits
// and what is late is therefore counted by the monotonic clock that time.Time
// carries along; these calls would drop it.
func TestClocksMayJump(t *testing.T) {
	for _, f := range sources(t) {
		if f.isTest() || wallClock[f.dir] != "" || strings.HasPrefix(f.dir, "qemu-tests") {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || len(call.Args) > 0 {
				return true
			}
			switch sel.Sel.Name {
			case "Unix", "UnixNano", "UnixMilli", "UnixMicro", "UTC", "Local", "ModTime":
				t.Errorf("%s/%s asks the wall clock (%s): it may jump at any moment; compare by time.Since, or give a reason in the list",
					f.dir, f.name, sel.Sel.Name)
			}
			return true
		})
	}
}

func TestNoPackageIsCalledAfterNothing(t *testing.T) {
	for _, f := range sources(t) {
		switch path.Base(f.dir) {
		case "util", "utils", "common", "helpers", "constants", "misc":
			t.Errorf("%s: a package is called after what it is for", f.dir)
		}
	}
}

func TestFilesStaySmall(t *testing.T) {
	for _, f := range sources(t) {
		data, err := os.ReadFile(filepath.Join("../..", f.dir, f.name))
		if err != nil {
			t.Fatal(err)
		}
		if lines := strings.Count(string(data), "\n"); lines > 500 && !f.isTest() {
			t.Errorf("%s/%s has %d lines: split it where its subject changes", f.dir, f.name, lines)
		}
	}
}
