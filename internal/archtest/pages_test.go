package archtest

import (
	"go/ast"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	architecture = "docs/architecture.md"
	contributing = "CONTRIBUTING.md"
)

// page returns a page of the project, or one section of it.
func page(t *testing.T, name, section string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../..", name))
	if err != nil {
		t.Fatal(err)
	}
	if section == "" {
		return string(data)
	}
	_, text, ok := strings.Cut(string(data), "\n## "+section+"\n")
	if !ok {
		t.Fatalf("%s has no section %q", name, section)
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return text
}

// beside is the floor of the packages that stand beside the floors.
const beside = -1

// floorsOfPage reads which packages there are, and on which floor, off the page that
// people read: no second list can differ from it.
func floorsOfPage(t *testing.T) map[string]int {
	t.Helper()
	floors := map[string]int{}
	for _, part := range strings.Split(page(t, architecture, "Packages"), "\n**")[1:] {
		floor := beside
		if m := regexp.MustCompile(`^Floor (\d)`).FindStringSubmatch(part); m != nil {
			floor, _ = strconv.Atoi(m[1])
		}
		for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| .+ \\|$").FindAllStringSubmatch(part, -1) {
			floors[row[1]] = floor
		}
	}
	return floors
}

// Each package is described in one line.
func TestArchitecturePageHasEveryPackage(t *testing.T) {
	floors := floorsOfPage(t)
	exist := map[string]bool{}
	for _, f := range sources(t) {
		exist[f.dir] = true
	}
	for _, dir := range slices.Sorted(maps.Keys(exist)) {
		if _, named := floors[dir]; !named {
			t.Errorf("%s has no line for %s", architecture, dir)
		}
	}
	for _, dir := range slices.Sorted(maps.Keys(floors)) {
		if !exist[dir] {
			t.Errorf("%s has a line for %s: there is no such package", architecture, dir)
		}
	}
}

// measuring are packages that run on the machine of a developer.
var measuring = regexp.MustCompile(`^(qemu-tests|images|internal/(bench|sim|netbed|testrun)|cmds/(vfield-bench|vfield-sim|runtests|viver$))`)

// A goroutine that nobody waits for is one that nobody can stop.
func TestArchitecturePageHasEveryOwnerOfGoroutines(t *testing.T) {
	section := page(t, architecture, "Goroutines and their owners")
	starts := map[string]bool{}
	for _, f := range sources(t) {
		if f.isTest() || measuring.MatchString(f.dir) {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			_, is := n.(*ast.GoStmt)
			if call, ok := n.(*ast.CallExpr); is || ok && lastName(call) == "Go" {
				starts[f.dir] = true
			}
			return true
		})
	}
	if len(starts) < 8 {
		t.Errorf("found %d packages that start goroutines", len(starts))
	}
	for _, dir := range slices.Sorted(maps.Keys(starts)) {
		if !strings.Contains(section, "`"+dir+"/") && !strings.Contains(section, "`"+dir+"`") {
			t.Errorf("%s starts goroutines, and %s does not say who owns them", dir, architecture)
		}
	}
}

// declared are the functions, methods (Type.Name) and types of each file.
func declared(t *testing.T) map[string]map[string]bool {
	t.Helper()
	all := map[string]map[string]bool{}
	for _, f := range sources(t) {
		names := map[string]bool{}
		all[path.Join(f.dir, f.name)] = names
		for _, d := range f.ast.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				name := d.Name.Name
				if d.Recv != nil {
					name = receiver(d) + "." + name
				}
				names[name] = true
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						names[s.Name.Name] = true
					case *ast.ValueSpec:
						for _, n := range s.Names {
							names[n.Name] = true
						}
					}
				}
			}
		}
	}
	return all
}

// A page that leads to a place that is gone costs more than none.
func TestPagesNamePlacesThatExist(t *testing.T) {
	code := declared(t)
	for _, name := range []string{architecture, contributing} {
		text := page(t, name, "")
		places := regexp.MustCompile("`([\\w./-]+\\.go)`: `([\\w.]+)`").FindAllStringSubmatch(text, -1)
		for _, m := range places {
			if names := code[m[1]]; names != nil && !names[m[2]] {
				t.Errorf("%s says %s in %s: it is not there", name, m[2], m[1])
			}
		}
		paths := regexp.MustCompile("`([\\w.@-]+(?:/[\\w.@-]+)+/?|[\\w-]+\\.(?:go|sh|md|toml|mod))`").FindAllStringSubmatch(text, -1)
		for _, m := range paths {
			if made.MatchString(m[1]) {
				continue
			}
			if _, err := os.Stat(filepath.Join("../..", m[1])); err != nil {
				t.Errorf("%s names %s: there is no such file", name, m[1])
			}
		}
		if len(places) < 5 || len(paths) < 10 {
			t.Errorf("%s names %d functions and %d files; the rule would hold for nothing", name, len(places), len(paths))
		}
	}
}

// made are files that a build, a test or a boot makes, or that are on a medium.
var made = regexp.MustCompile(`^(images/out|qemu-tests/out|viver/|rune\.toml$|viver\.toml$)`)

// buildVerbs are the verbs of build.sh with the words that may follow each.
func buildVerbs(t *testing.T) map[string]bool {
	t.Helper()
	_, cases, ok := strings.Cut(page(t, "build.sh", ""), "\ncase $verb in\n")
	if !ok {
		t.Fatal("build.sh has no list of verbs")
	}
	verbs := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+)(?: \|.*)?\)`).FindAllStringSubmatch(cases, -1) {
		verbs[m[1]] = true
	}
	return verbs
}

// Who types what a page says sees it work: the verbs, tiers, tests, packages and
// images of each command exist.
func TestPagesNameCommandsThatExist(t *testing.T) {
	verbs, tests := buildVerbs(t), testNames(t)
	for _, file := range []string{contributing, "README.md", "build.sh"} {
		text := page(t, file, "")
		if file == "build.sh" { // what it tells people
			text = strings.Join(regexp.MustCompile(`(?s)<<'EOF'\n.*?\nEOF\n`).FindAllString(text, -1), "")
		}
		commands := regexp.MustCompile(`(?m)^ {2,4}\./build\.sh ([a-z].*?)(?: {2,}.*| +#.*)?$`).FindAllStringSubmatch(text, -1)
		if len(commands) < 5 {
			t.Errorf("%s has %d commands; the rule would hold for nothing", file, len(commands))
		}
		for _, m := range commands {
			words := strings.Fields(m[1])
			if !verbs[words[0]] {
				t.Errorf("%s: ./build.sh %s: no such verb", file, m[1])
			}
			switch {
			case words[0] == "image" && len(words) > 1:
				if _, err := os.Stat(filepath.Join("../../images", words[1], "build.sh")); err != nil {
					t.Errorf("%s: ./build.sh %s: no such image", file, m[1])
				}
			case words[0] == "test" && len(words) > 1:
				if why := testCommand(words[1:], tests); why != "" {
					t.Errorf("%s: ./build.sh %s: %s", file, m[1], why)
				}
			}
		}
	}
}

// testCommand says what is wrong with the words after ./build.sh test.
func testCommand(words []string, tests map[string]bool) (why string) {
	if !slices.Contains([]string{"lint", "unit", "race", "netns", "qemu", "full", "--help", "[TIER"}, words[0]) {
		return "no such tier"
	}
	for i, w := range words[1:] {
		switch {
		case words[i] == "-run" || strings.HasPrefix(w, "Test"):
			w, _, _ = strings.Cut(w, "/")
			if !slices.ContainsFunc(slices.Collect(maps.Keys(tests)), func(name string) bool { return strings.Contains(name, w) }) {
				return "no test is called " + w
			}
		case strings.HasPrefix(w, "-"), strings.HasPrefix(w, "["), w == "full", words[i] == "-count":
		default:
			if !isPackage(strings.TrimPrefix(w, "./")) {
				return "no package is called " + w
			}
		}
	}
	return ""
}

func isPackage(word string) bool {
	return slices.ContainsFunc([]string{"", "internal", "cmds"}, func(place string) bool {
		found, err := filepath.Glob(filepath.Join("../..", place, word, "*.go"))
		return err == nil && len(found) > 0
	})
}
