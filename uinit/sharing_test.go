package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// guarded are the fields of node that any stage may use at any time: they guard
// themselves, or are set before the first stage.
var guarded = []string{"host", "log", "events", "early", "kernelLog", "background", "modules"}

// harmless are the uses that cannot meet a write, each with a reason.
var harmless = map[string]string{
	"boothost net":   "beside network it runs on the first node only, and there it ends before",
	"network config": "on the first node boothost adds no settings",
	// vfield takes the address of the whole to write it to a file
	"bundles boot.First": "no stage beside bundles changes it",
	"bundles boot.Host":  "no stage beside bundles changes it",
}

// uses is what a stage does with the fields of node; those of boot are told apart.
type uses struct{ reads, writes map[string]bool }

// source is the methods of node, by name.
type source map[string]*ast.FuncDecl

func methods(t *testing.T) source {
	t.Helper()
	files, _ := filepath.Glob("*.go") // fails on a bad pattern only
	fset, all := token.NewFileSet(), make(source)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv != nil && len(f.Recv.List[0].Names) > 0 && f.Recv.List[0].Names[0].Name == "n" {
				all[f.Name.Name] = f
			}
		}
	}
	return all
}

// field returns the field of node that an expression begins with: "image" for
// n.image.Name, "boot.First" for n.boot.First, "" for anything else.
func field(e ast.Expr) string {
	var path []string
	for {
		switch x := e.(type) {
		case *ast.SelectorExpr:
			path = append(path, x.Sel.Name)
			e = x.X
		case *ast.IndexExpr:
			path, e = nil, x.X
		case *ast.Ident:
			if x.Name != "n" || len(path) == 0 {
				return ""
			}
			slices.Reverse(path)
			if path[0] == "boot" && len(path) > 1 {
				return "boot." + path[1]
			}
			return path[0]
		default:
			return ""
		}
	}
}

// add collects what a method and those that it calls do with the fields.
func (s source) add(u uses, method string, seen map[string]bool) {
	if seen[method] {
		return
	}
	seen[method] = true
	ast.Inspect(s[method], func(node ast.Node) bool {
		switch x := node.(type) {
		case *ast.AssignStmt:
			for _, left := range x.Lhs {
				u.writes[field(left)] = true
			}
		case *ast.UnaryExpr:
			if x.Op == token.AND {
				u.writes[field(x.X)] = true
			}
		case *ast.CallExpr: // a method of a field may change it: the settings' sources do
			if call, ok := x.Fun.(*ast.SelectorExpr); ok && strings.HasPrefix(call.Sel.Name, "Add") {
				u.writes[field(call.X)] = true
			}
		case *ast.SelectorExpr:
			name := field(x)
			if s[name] != nil {
				s.add(u, name, seen)
				return true
			}
			u.reads[name] = true
			return false
		}
		return true
	})
}

// overlap reports whether two fields are the same, or one is a part of the other.
func overlap(a, b string) bool {
	return a == b || strings.HasPrefix(a, b+".") || strings.HasPrefix(b, a+".")
}

// Stages that may run beside each other share no field of node that one of them
// writes. What each reads and writes is in its source.
func TestStagesBesideEachOtherShareNothing(t *testing.T) {
	s := methods(t)
	used := make(map[string]uses)
	ast.Inspect(s["stages"], func(node ast.Node) bool {
		row, ok := node.(*ast.CompositeLit)
		if !ok || row.Type != nil || len(row.Elts) != 7 {
			return true
		}
		name := strings.Trim(row.Elts[0].(*ast.BasicLit).Value, `"`)
		method := row.Elts[6].(*ast.SelectorExpr).Sel.Name
		u := uses{make(map[string]bool), make(map[string]bool)}
		s.add(u, method, make(map[string]bool))
		for _, name := range append(guarded, "") {
			delete(u.reads, name)
			delete(u.writes, name)
		}
		used[name] = u
		return true
	})
	stages := newNode().stages()
	if len(used) != len(stages) || !used["disks"].writes["found"] || !used["root"].reads["found"] || !used["vfield"].writes["boot.Hostname"] || !used["boothost"].writes["config"] {
		t.Fatalf("the source is not read as it should: %v", used)
	}
	for _, first := range []bool{false, true} {
		above := before(stages, first)
		for _, a := range stages {
			for _, b := range stages {
				if a.name == b.name || above[a.name][b.name] || above[b.name][a.name] {
					continue
				}
				for written := range used[a.name].writes {
					for _, other := range []map[string]bool{used[b.name].reads, used[b.name].writes} {
						for name := range other {
							if overlap(written, name) && harmless[b.name+" "+name] == "" {
								t.Errorf("first node %v: %s writes node.%s, which %s uses, and they may run at one time", first, a.name, written, b.name)
							}
						}
					}
				}
			}
		}
	}
}
