package archtest

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// byHand are the functions that take bytes apart and that no fuzz target
// reaches, each with the reason why nobody else chooses those bytes.
var byHand = map[string]string{
	"images/tiny/init.mortals":                "the names of its own processes",
	"internal/bench/nbdread.Client.handshake": "a benchmark, beside the server that it started",
	"internal/bench/nbdread.Client.reply":     "a benchmark, beside the server that it started",
	"internal/hardware.Machine.ID":            "a digest of its own",
	"internal/klog.lineWriter.Write":          "a line of its own",
	"internal/nbd.putDataReply":               "it writes",
	"internal/nbd.session.read":               "a buffer of its own, that begins with room for the reply",
	"internal/xtables.NewAccept":              "it writes",
	"internal/packet.networkOrder":            "a number of its own",
}

// A packet that a handler took apart by hand killed the daemon that holds the
// root disk. So bytes from outside are decoded by functions that a fuzz target
// runs, and by no others. What counts as decoding: a number read by
// encoding/binary, a byte read by its index, and a slice of bytes that begins or
// ends at a fixed place or at one that the bytes themselves name.
func TestBytesAreDecodedWhereAFuzzTargetIs(t *testing.T) {
	used := map[string]bool{}
	for _, p := range typed(t) {
		fuzzed := p.fuzzed(t)
		for _, d := range p.decoders() {
			name := p.dir + "." + d.name
			switch {
			case byHand[name] != "":
				used[name] = true
			case !fuzzed[d.fn]:
				t.Errorf("%s decodes bytes (%s) and no Fuzz function of its package reaches it: move that into a function from bytes to a struct, with bounds and a fuzz target, or give a reason in the list", name, strings.Join(d.places, ", "))
			}
		}
	}
	for name := range byHand {
		if !used[name] {
			t.Errorf("%s is in the list of those who decode by hand, and does not, or a fuzz target reaches it", name)
		}
	}
}

// typedPackage is a package with the types of its expressions.
type typedPackage struct {
	dir   string // below the module
	path  string // in the file system
	set   *token.FileSet
	files []*ast.File
	info  *types.Info
}

// listed asks the go command for packages and all they import: path, what the
// compiler knows of it, which is in its cache, directory and files.
func listed(t *testing.T, patterns ...string) [][]string {
	t.Helper()
	list := exec.Command("go", append([]string{"list", "-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}\t{{.Dir}}\t{{join .GoFiles \" \"}}"}, patterns...)...)
	list.Dir = "../.."
	var complaints strings.Builder
	list.Stderr = &complaints
	out, err := list.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, complaints.String())
	}
	var all [][]string
	for line := range strings.Lines(string(out)) {
		all = append(all, strings.Split(strings.TrimSuffix(line, "\n"), "\t"))
	}
	return all
}

// compiled imports what listed returned.
func compiled(set *token.FileSet, list [][]string) types.Importer {
	exports := map[string]string{}
	for _, p := range list {
		exports[p[0]] = p[1]
	}
	return importer.ForCompiler(set, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
}

// typed returns the packages of the product.
func typed(t *testing.T) []*typedPackage {
	t.Helper()
	list := listed(t, "./internal/...", "./cmds/...", "./uinit/...", "./images/...")
	var all []*typedPackage
	var sources [][]string
	for _, f := range list {
		if dir, ours := strings.CutPrefix(f[0], module); ours && f[3] != "" {
			all = append(all, &typedPackage{dir: dir, path: f[2]})
			sources = append(sources, strings.Fields(f[3]))
		}
	}
	if len(all) < 40 {
		t.Fatalf("the go command lists %d packages; the rule would hold for nothing", len(all))
	}
	set := token.NewFileSet()
	imports := compiled(set, list)
	for i, p := range all {
		for _, name := range sources[i] {
			f, err := parser.ParseFile(set, filepath.Join(p.path, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			p.files = append(p.files, f)
		}
		if err := p.check(set, imports); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func (p *typedPackage) check(set *token.FileSet, imports types.Importer) error {
	p.set = set
	p.info = &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
	_, err := (&types.Config{Importer: imports}).Check(module+p.dir, set, p.files, p.info)
	return err
}

// each calls do for every call in a package.
func (p *typedPackage) each(do func(call *ast.CallExpr)) {
	for _, f := range p.files {
		ast.Inspect(f, func(n ast.Node) bool {
			if call, ok := n.(*ast.CallExpr); ok {
				do(call)
			}
			return true
		})
	}
}

// decoder is a function that takes bytes apart.
type decoder struct {
	fn     types.Object
	name   string // with its type, if it is a method
	places []string
}

func (p *typedPackage) decoders() []decoder {
	var all []decoder
	p.functions(func(fn types.Object, decl *ast.FuncDecl) {
		d := decoder{fn: fn, name: decl.Name.Name}
		if decl.Recv != nil {
			d.name = receiver(decl) + "." + d.name
		}
		p.inspect(decl, func(at ast.Node) {
			d.places = append(d.places, fmt.Sprintf("line %d", p.set.Position(at.Pos()).Line))
		})
		if d.places = slices.Compact(d.places); len(d.places) > 0 {
			all = append(all, d)
		}
	})
	return all
}

// functions visits what is declared with a body.
func (p *typedPackage) functions(visit func(types.Object, *ast.FuncDecl)) {
	for _, f := range p.files {
		for _, d := range f.Decls {
			if decl, ok := d.(*ast.FuncDecl); ok && decl.Body != nil {
				visit(p.info.Defs[decl.Name], decl)
			}
		}
	}
}

func receiver(decl *ast.FuncDecl) string {
	x := decl.Recv.List[0].Type
	if star, ok := x.(*ast.StarExpr); ok {
		x = star.X
	}
	if index, ok := x.(*ast.IndexExpr); ok {
		x = index.X
	}
	return x.(*ast.Ident).Name
}

// inspect reports the places where a function takes bytes apart. What it writes
// is its own affair: the left side of an assignment, the destination of copy
// and of binary.PutUint16 and its like.
func (p *typedPackage) inspect(decl *ast.FuncDecl, report func(ast.Node)) {
	written := map[ast.Node]bool{}
	ast.Inspect(decl, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for _, left := range n.Lhs {
				written[left] = true
			}
		case *ast.CallExpr:
			name := lastName(n)
			if len(n.Args) > 0 && (name == "copy" || name == "clear" || strings.HasPrefix(name, "Put")) {
				written[n.Args[0]] = true
			}
			if p.readsNumber(n) {
				report(n)
			}
		case *ast.UnaryExpr:
			if n.Op == token.AND { // an address, for the kernel
				written[n.X] = true
			}
		case *ast.IndexExpr:
			if p.isBytes(n.X) && !written[n] {
				report(n)
			}
		case *ast.SliceExpr:
			if p.isBytes(n.X) && !written[n] && p.fixed(n) {
				report(n)
			}
		}
		return true
	})
}

// lastName is the last part of a called function's name.
func lastName(n *ast.CallExpr) string {
	switch f := n.Fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}

// readsNumber tells whether encoding/binary is asked for a number.
func (p *typedPackage) readsNumber(n *ast.CallExpr) bool {
	sel, ok := n.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	fn := p.info.Uses[sel.Sel]
	if fn == nil || fn.Pkg() == nil || fn.Pkg().Path() != "encoding/binary" {
		return false
	}
	name := fn.Name()
	return strings.HasPrefix(name, "Uint") || name == "Read" || name == "Decode" || name == "Varint" || name == "Uvarint"
}

// isBytes tells whether an expression is a []byte. One of []uint8 holds small
// numbers.
func (p *typedPackage) isBytes(x ast.Expr) bool {
	slice, ok := p.info.TypeOf(x).Underlying().(*types.Slice)
	if !ok {
		return false
	}
	element, ok := slice.Elem().(*types.Basic)
	return ok && element.Name() == "byte"
}

// fixed tells whether a slice has a bound that its length does not give: a
// constant but 0. A bound that the bytes name is found where they are read.
func (p *typedPackage) fixed(n *ast.SliceExpr) bool {
	for _, bound := range []ast.Expr{n.Low, n.High, n.Max} {
		if bound == nil {
			continue
		}
		if v := p.info.Types[bound].Value; v != nil && constant.Sign(v) != 0 {
			return true
		}
	}
	return false
}

// fuzzed are the functions that a Fuzz function of the package's tests reaches.
// The tests are searched by names, the package by what the names mean.
func (p *typedPackage) fuzzed(t *testing.T) map[types.Object]bool {
	t.Helper()
	names := fuzzWords(t, p.path)
	uses, byName := map[types.Object][]*ast.Ident{}, map[string][]types.Object{}
	p.functions(func(fn types.Object, decl *ast.FuncDecl) {
		byName[fn.Name()] = append(byName[fn.Name()], fn)
		uses[fn] = namesIn(decl.Body)
	})
	reached := map[types.Object]bool{}
	var reach func(types.Object)
	reach = func(fn types.Object) {
		if reached[fn] {
			return
		}
		reached[fn] = true
		for _, id := range uses[fn] {
			used, ok := p.info.Uses[id].(*types.Func)
			if !ok {
				continue
			}
			reach(used.Origin())
			if recv := used.Signature().Recv(); recv != nil && types.IsInterface(recv.Type()) {
				for _, one := range byName[used.Name()] { // any may stand behind it
					reach(one)
				}
			}
		}
	}
	for name := range names {
		for _, fn := range byName[name] {
			reach(fn)
		}
	}
	return reached
}

// inOrder visits a body, but for what runs beside it: a server that a fuzz target
// starts does not decode what the target is given.
func inOrder(body *ast.BlockStmt, visit func(ast.Node)) {
	ast.Inspect(body, func(n ast.Node) bool {
		if _, ok := n.(*ast.GoStmt); ok {
			return false
		}
		if call, ok := n.(*ast.CallExpr); ok {
			if name := lastName(call); name == "Go" || name == "AfterFunc" {
				return false
			}
		}
		visit(n)
		return true
	})
}

func namesIn(body *ast.BlockStmt) (names []*ast.Ident) {
	inOrder(body, func(n ast.Node) {
		if id, ok := n.(*ast.Ident); ok {
			names = append(names, id)
		}
	})
	return names
}

// called are the names that a body calls or hands over.
func called(body *ast.BlockStmt) (names []*ast.Ident) {
	inOrder(body, func(n ast.Node) {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return
		}
		for _, x := range append(call.Args, call.Fun) {
			switch x := x.(type) {
			case *ast.Ident:
				names = append(names, x)
			case *ast.SelectorExpr:
				names = append(names, x.Sel)
			}
		}
	})
	return names
}

// fuzzWords are the names in the Fuzz functions of a folder, and in the
// functions of its tests that they call.
func fuzzWords(t *testing.T, dir string) map[string]bool {
	t.Helper()
	tests, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	bodies := map[string][]*ast.BlockStmt{}
	for _, name := range tests {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil {
				bodies[fn.Name.Name] = append(bodies[fn.Name.Name], fn.Body)
			}
		}
	}
	words := map[string]bool{}
	var read func(name string)
	read = func(name string) {
		if words[name] {
			return
		}
		words[name] = true
		for _, body := range bodies[name] {
			for _, id := range called(body) {
				read(id.Name)
			}
		}
	}
	for name := range bodies {
		if strings.HasPrefix(name, "Fuzz") {
			read(name)
		}
	}
	return words
}

// sample has one function for each way to take bytes apart, and one for each
// that is none. The name says what is expected.
const sample = `package sample

import "encoding/binary"

func yesLength(b []byte) string { return string(b[1:1+b[0]]) }
func yesIndex(b []byte, i int) bool { return len(b) > i && b[i] == 7 }
func yesNumber(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
func yesVarint(b []byte) (uint64, int) { return binary.Uvarint(b) }
func yesFixed(b []byte) []byte { return b[4:] }
func yesAfterwards(b []byte) byte {
	c := b
	return func() byte { return c[0] }()
}
type own []byte
func (o own) yesMethod() byte { return o[0] }

func noRead(b []byte, n int) []byte { return b[:n] }
func noWhole(b []byte) []byte { return b[0:] }
func noWrite(b []byte) {
	b[0] = 1
	copy(b[2:4], "ab")
	binary.BigEndian.PutUint16(b[4:], 7)
}
func noAddress(b []byte) *byte { return &b[0] }
func noCounter(seen []uint8, i int) bool { return seen[i] > 0 }
func noText(s string) byte { return s[0] }
func noMap(m map[byte][]byte) []byte { return m[53] }

func fuzzedHere(b []byte) byte { return inner(b) }
func inner(b []byte) byte { return b[0] }
func server(b []byte) { go behind(b) }
func behind(b []byte) byte { return b[0] }
`

func TestTheRuleAboutDecodersCatches(t *testing.T) {
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, "sample.go", sample, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &typedPackage{dir: "sample", path: t.TempDir(), files: []*ast.File{f}}
	if err := p.check(set, compiled(set, listed(t, "encoding/binary"))); err != nil {
		t.Fatal(err)
	}
	const tests = "package sample\nfunc FuzzIt(f *testing.F) { f.Fuzz(func(t *testing.T, b []byte) { helper(b) }) }\n" +
		"func helper(b []byte) { fuzzedHere(b); server(b) }\nfunc TestIt(t *testing.T) { yesIndex(nil, 0) }\n"
	if err := os.WriteFile(filepath.Join(p.path, "sample_test.go"), []byte(tests), 0o600); err != nil {
		t.Fatal(err)
	}
	found, fuzzed := map[string]bool{}, p.fuzzed(t)
	for _, d := range p.decoders() {
		found[d.fn.Name()] = true
		if want := d.fn.Name() == "inner"; fuzzed[d.fn] != want {
			t.Errorf("%s is reached by a fuzz target: %t, want %t", d.fn.Name(), fuzzed[d.fn], want)
		}
	}
	p.functions(func(fn types.Object, _ *ast.FuncDecl) {
		want := strings.HasPrefix(fn.Name(), "yes") || fn.Name() == "inner" || fn.Name() == "behind"
		if found[fn.Name()] != want {
			t.Errorf("%s decodes: %t, want %t", fn.Name(), found[fn.Name()], want)
		}
	})
}
