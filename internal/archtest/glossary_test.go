package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

const glossary = "docs/glossary.md"

// ordinary are lines on which a word of the glossary's last column has its
// ordinary meaning: the file, and a part of the line.
var ordinary = []struct{ file, line string }{
	{"internal/boothost/bench_test.go", "bridge_slave"},    // a word of iproute2
	{"internal/imagesource/inuse.go", `madeOf = "slaves"`}, // a word of the kernel
	{"internal/hardware/describe_test.go", "Desk 3000"},
}

// avoided is one item of the glossary's last column.
type avoided struct {
	term  string
	item  string   // as the page has it
	words []string // of a phrase, in lower case; nil for a Go name or a file name
	in    []string // the directories that it is about; none for all
}

// readGlossary parses the rows of the page. An item is a phrase, or a Go name, or that
// of a function with "()", or a file name, in backquotes; "(in a b)" behind it limits it to those directories.
func readGlossary(text string) (terms []string, items []avoided) {
	item := regexp.MustCompile("(`[^`]+`|[^,(`]+)(?: \\(in ([^)]+)\\))?(?:, |$)")
	for _, row := range regexp.MustCompile(`(?m)^\| ([^|\n]+) \| ([^|\n]+) \|([^|\n]*)\|$`).FindAllStringSubmatch(text, -1) {
		if row[1] == "term" || strings.HasPrefix(row[1], "--") {
			continue
		}
		terms = append(terms, row[1])
		for _, m := range item.FindAllStringSubmatch(strings.TrimSpace(row[3]), -1) {
			a := avoided{term: row[1], item: strings.Trim(m[1], "` "), in: strings.Fields(m[2])}
			if a.item == "" {
				continue
			}
			if !strings.HasPrefix(m[1], "`") {
				for _, w := range tokens(a.item) {
					a.words = append(a.words, w.text)
				}
			}
			items = append(items, a)
		}
	}
	return terms, items
}

// word is a word of a text, in lower case; every number is "#".
type word struct {
	text    string
	at, end int // bytes
}

// tokens cuts a text into words, and a Go name such as takeTurn too.
func tokens(s string) []word {
	var out []word
	var start, last = -1, rune(0)
	flush := func(end int) {
		if start >= 0 {
			out = append(out, word{strings.ToLower(s[start:end]), start, end})
		}
		start = -1
	}
	for i, r := range s {
		switch {
		case r == '%' || unicode.IsDigit(r):
			if start >= 0 && !unicode.IsDigit(last) && last != '%' {
				flush(i)
			}
			if start < 0 {
				start = i
			}
		case unicode.IsLetter(r):
			if last == '%' { // a verb of fmt
				break
			}
			next := rune(0)
			if i+1 < len(s) {
				next = rune(s[i+1])
			}
			if start >= 0 && (unicode.IsDigit(last) || unicode.IsUpper(r) && (unicode.IsLower(last) || unicode.IsUpper(last) && unicode.IsLower(next))) {
				flush(i)
			}
			if start < 0 {
				start = i
			}
		default:
			flush(i)
		}
		last = r
	}
	flush(len(s))
	for i := range out {
		if c := out[i].text[0]; c == '%' || c >= '0' && c <= '9' {
			out[i].text = "#"
		}
	}
	return out
}

// between reports whether nothing but space, a hyphen or a comment's marks are
// between two words of one phrase.
func between(s string) bool { return strings.Trim(s, " \t\n/*-_#>") == "" }

func same(word, avoid string) bool {
	return word == avoid || strings.TrimSuffix(word, "s") == avoid || strings.TrimSuffix(word, "es") == avoid
}

// dictionary finds what is avoided, by its first word.
type dictionary map[string][]avoided

func newDictionary(items []avoided) dictionary {
	d := dictionary{}
	for _, a := range items {
		key := a.item
		if a.words != nil {
			key = a.words[0]
		}
		d[key] = append(d[key], a)
	}
	return d
}

func (a avoided) about(dir string) bool {
	return len(a.in) == 0 || slices.ContainsFunc(a.in, func(in string) bool { return dir == in || strings.HasPrefix(dir, in+"/") })
}

// phrases calls found for each phrase that s should not have.
func (d dictionary) phrases(dir, s string, found func(a avoided, at int)) {
	words := tokens(s)
	for i, w := range words {
		keys := []string{w.text, strings.TrimSuffix(w.text, "s"), strings.TrimSuffix(w.text, "es")}
		slices.Sort(keys)
		for _, key := range slices.Compact(keys) {
			for _, a := range d[key] {
				if a.words != nil && a.about(dir) && a.begins(words[i:], s) {
					found(a, w.at)
				}
			}
		}
	}
}

func (a avoided) begins(words []word, s string) bool {
	if len(words) < len(a.words) {
		return false
	}
	for i, want := range a.words {
		if !same(words[i].text, want) || i > 0 && !between(s[words[i-1].end:words[i].at]) {
			return false
		}
	}
	return true
}

// name calls found if a Go name, or a file's, should not be used.
func (d dictionary) name(dir, name string, found func(a avoided, at int)) {
	d.exact(dir, name, found)
	d.phrases(dir, name, found)
}

func (d dictionary) exact(dir, name string, found func(a avoided, at int)) {
	for _, a := range d[name] {
		if a.words == nil && a.about(dir) {
			found(a, 0)
		}
	}
}

// goFile reports each avoided word of a Go file, once for each line: in the names
// that it declares, in its comments, and in its strings but those of imports and tags.
func (d dictionary) goFile(f file, report func(line int, a avoided)) {
	seen := map[string]bool{}
	say := func(line int, a avoided) {
		if key := fmt.Sprint(line, a.item); !seen[key] {
			seen[key] = true
			report(line, a)
		}
	}
	declared := func(ids ...*ast.Ident) {
		for _, id := range ids {
			if id != nil {
				d.name(f.dir, id.Name, func(a avoided, _ int) { say(f.set.Position(id.Pos()).Line, a) })
			}
		}
	}
	prose := func(pos token.Pos, s string) {
		line := f.set.Position(pos).Line
		d.phrases(f.dir, s, func(a avoided, at int) { say(line+strings.Count(s[:at], "\n"), a) })
	}
	d.name(f.dir, f.name, func(a avoided, _ int) { say(1, a) })
	for _, group := range f.ast.Comments {
		var s strings.Builder
		for _, c := range group.List {
			s.WriteString(c.Text + "\n")
		}
		prose(group.Pos(), s.String())
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.FuncDecl:
			declared(n.Name)
			d.exact(f.dir, n.Name.Name+"()", func(a avoided, _ int) { say(f.set.Position(n.Name.Pos()).Line, a) })
		case *ast.TypeSpec:
			declared(n.Name)
		case *ast.ValueSpec:
			declared(n.Names...)
		case *ast.Field:
			declared(n.Names...)
			n.Tag = nil
		case *ast.AssignStmt:
			for _, x := range n.Lhs {
				if id, ok := x.(*ast.Ident); ok && n.Tok == token.DEFINE {
					declared(id)
				}
			}
		case *ast.RangeStmt:
			for _, x := range []ast.Expr{n.Key, n.Value} {
				if id, ok := x.(*ast.Ident); ok && n.Tok == token.DEFINE {
					declared(id)
				}
			}
		case *ast.BasicLit:
			if s, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING {
				if strings.HasPrefix(n.Value, `"`) {
					s = strings.ReplaceAll(s, "\n", " ") // an escape is no line of the source
				}
				prose(n.Pos(), s)
			}
		}
		return true
	})
}

// texts are the files beside Go's whose words people read.
func texts(t *testing.T) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir("../..", func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(filepath.ToSlash(p), "../../")
		if e.IsDir() {
			if rel == ".git" || rel == "images/out" || rel == "qemu-tests/out" || e.Name() == "testdata" {
				return fs.SkipDir
			}
			return nil
		}
		if slices.Contains([]string{".md", ".sh", ".toml", ".tmpl", ".html"}, path.Ext(rel)) && rel != glossary {
			names = append(names, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// One word for one thing, and the one that engineers know: what the glossary says
// not to say is in no name, comment, message or page.
func TestWordsAreThoseOfTheGlossary(t *testing.T) {
	terms, items := readGlossary(page(t, glossary, ""))
	if len(terms) < 40 || len(items) < 40 {
		t.Fatalf("%s has %d terms, and %d words to avoid; the rule would hold for nothing", glossary, len(terms), len(items))
	}
	d, used := newDictionary(items), make([]bool, len(ordinary))
	check := func(name string, source []string, line int, a avoided) {
		text := strings.TrimSpace(source[line-1])
		for i, o := range ordinary {
			if o.file == name && strings.Contains(text, o.line) {
				used[i] = true
				return
			}
		}
		t.Errorf("%s:%d: %q, where %s has %q: %s", name, line, a.item, glossary, a.term, text)
	}
	for _, f := range sources(t) {
		name := path.Join(f.dir, f.name)
		if f.dir == "internal/archtest" {
			continue
		}
		source := strings.Split(page(t, name, ""), "\n")
		d.goFile(f, func(line int, a avoided) { check(name, source, line, a) })
	}
	for _, name := range texts(t) {
		text := page(t, name, "")
		source := strings.Split(text, "\n")
		d.phrases(path.Dir(name), text, func(a avoided, at int) { check(name, source, 1+strings.Count(text[:at], "\n"), a) })
	}
	for i, o := range ordinary {
		if !used[i] {
			t.Errorf("no word has its ordinary meaning in %s on the line %q: take it from the list", o.file, o.line)
		}
	}
}

// The rule finds what it is for, and nothing else.
func TestGlossaryFindsPlantedWords(t *testing.T) {
	_, items := readGlossary(`
| term | meaning | what not to say |
|---|---|---|
| super-seeding | x | gift, ` + "`Admit`, `look()`" + ` |
| no answer for 14 s | x | none answers since # |
| address probe | x | look at the link (in a b/c) |
`)
	d := newDictionary(items)
	for source, want := range map[string]string{
		"package a\n\n// A gift.\nvar x int":                                    "3 gift",
		"package a\n\nvar gifts int":                                            "3 gift",
		"package a\n\nfunc giftOf() {}":                                         "3 gift",
		"package a\n\ntype t struct{ a, lastGift int }":                         "3 gift",
		"package a\n\nfunc f() { theGift := 1; _ = theGift }":                   "3 gift",
		"package a\n\nvar s = \"a gift, too\"":                                  "3 gift",
		"package a\n\nvar s = `a\ngift`":                                        "4 gift",
		"package a\n\nfunc look() { look := 1; _ = look }":                      "3 look()",
		"package a\n\nfunc Admit() {}":                                          "3 Admit",
		"package a\n\n// None answers\n// since 14 s.\nvar x int":               "3 none answers since #",
		"package a\n\nvar s = \"none answers since %s\"":                        "3 none answers since #",
		"package a\n\n// It looks at the\n// link.\nvar x int":                  "3 look at the link",
		"package a\n\n// admit, gifted; none answers. Since 3.\nvar x int":      "",
		"package a\n\nimport _ \"gift\"\n\ntype t struct { x int `gift:\"\"` }": "",
		"package a\n\nvar x = y.Admit() + gift()":                               "",
	} {
		set := token.NewFileSet()
		parsed, err := parser.ParseFile(set, "x.go", source, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		d.goFile(file{dir: "a", name: "x.go", set: set, ast: parsed}, func(line int, a avoided) { got = append(got, fmt.Sprint(line, " ", a.item)) })
		if strings.Join(got, "; ") != want {
			t.Errorf("in %q found %q, want %q", source, got, want)
		}
	}
	d.phrases("b", "look at the link", func(a avoided, _ int) { t.Errorf("found %q in a directory that it is not about", a.item) })
}

// The log has one key for an error value, "error", and another for a reason in words.
func TestLogKeys(t *testing.T) {
	errorType := types.Universe.Lookup("error").Type().Underlying().(*types.Interface)
	found := 0
	for _, p := range typed(t) {
		p.each(func(call *ast.CallExpr) {
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || p.info.Uses[sel.Sel] == nil || p.info.Uses[sel.Sel].Pkg() == nil || p.info.Uses[sel.Sel].Pkg().Path() != "log/slog" {
				return
			}
			for i := 1; i < len(call.Args); i++ {
				key, ok := call.Args[i-1].(*ast.BasicLit)
				isError := types.Implements(p.info.Types[call.Args[i]].Type, errorType)
				switch {
				case !ok:
				case isError && key.Value == `"error"`:
					found++
				case isError, slices.Contains([]string{`"why"`, `"err"`, `"cause"`}, key.Value):
					t.Errorf("%s: the log key %s: it is \"error\" for an error value, \"reason\" for a reason in words", p.set.Position(key.Pos()), key.Value)
				}
			}
		})
	}
	if found < 30 {
		t.Errorf("found %d such keys; the rule would hold for nothing", found)
	}
}
