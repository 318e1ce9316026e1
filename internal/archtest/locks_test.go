package archtest

import (
	"go/ast"
	"go/token"
	"go/types"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// locked are the packages that a block passes on its way, with their locks.
var locked = []string{"internal/vfield", "internal/piecestore", "internal/swarm"}

// quick are packages, and functions, that compute and never wait.
var quick = []string{"fmt.Errorf", "fmt.Sprintf", "cmp", "errors", "maps", "math", "slices", "sync", "sync/atomic", "time", module + "internal/metainfo", module + "internal/placement"}

// underLock are functions that call others while they hold a lock, each with a reason.
var underLock = map[string]string{
	"internal/piecestore.Store.Close": "nobody uses the store any more",
	"internal/swarm.conn.send":        "closing a socket does not wait",
	"internal/swarm.lobby.enter":      "closing a socket does not wait, and rates are arithmetic",
	"internal/vfield.waiting.since":   "its callers have it look at a wait, and at nothing else",
}

// A lock that is held while something else is called, or while a disk is read, is
// how the parts of the root disk could stop each other. So none is: there is no order
// of locks to keep but the one that the page names.
func TestNothingIsCalledUnderALock(t *testing.T) {
	named := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(page(t, architecture, "Lock order"), -1) {
		named[m[1]] = true
	}
	used := map[string]bool{}
	for _, p := range typed(t) {
		if !slices.Contains(locked, p.dir) {
			continue
		}
		for _, lock := range p.locks() {
			if !named[lock] {
				t.Errorf("%s does not name the lock %s in its section on lock order", architecture, lock)
			}
			delete(named, lock)
		}
		w := walk{p: p, bodies: map[types.Object]*ast.FuncDecl{}}
		p.functions(func(fn types.Object, decl *ast.FuncDecl) { w.bodies[fn] = decl })
		for _, decl := range w.bodies {
			name := p.dir + "." + decl.Name.Name
			if decl.Recv != nil {
				name = p.dir + "." + receiver(decl) + "." + decl.Name.Name
			}
			for _, call := range w.underLock(decl) {
				if used[name] = true; underLock[name] == "" {
					t.Errorf("%s calls %s while it holds a lock", name, call)
				}
			}
		}
	}
	for lock := range named {
		t.Errorf("%s names the lock %s, which does not exist", architecture, lock)
	}
	for name := range underLock {
		if !used[name] {
			t.Errorf("%s is in the list of those who call others while they hold a lock, and does not", name)
		}
	}
}

func isLock(t types.Type) bool {
	return t != nil && slices.Contains([]string{"sync.Mutex", "sync.RWMutex"}, t.String())
}

// locks are the fields of a package that are locks.
func (p *typedPackage) locks() (all []string) {
	for id, def := range p.info.Defs {
		named, ok := def.(*types.TypeName)
		if !ok {
			continue
		}
		if s, ok := named.Type().Underlying().(*types.Struct); ok {
			for f := range s.Fields() {
				if isLock(f.Type()) {
					all = append(all, strings.TrimPrefix(p.dir, "internal/")+"."+id.Name+"."+f.Name())
				}
			}
		}
	}
	return all
}

// walk follows the calls of a package.
type walk struct {
	p      *typedPackage
	bodies map[types.Object]*ast.FuncDecl
}

// underLock returns what a function calls, itself or by others of its package, from
// each Lock to the next Unlock, or to its end when that is deferred.
func (w walk) underLock(decl *ast.FuncDecl) (calls []string) {
	deferred := map[ast.Node]bool{}
	var from, to []token.Pos
	ast.Inspect(decl.Body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.DeferStmt:
			deferred[n.Call] = true
		case *ast.CallExpr:
			sel, ok := n.Fun.(*ast.SelectorExpr)
			switch {
			case !ok || !isLock(w.p.info.Types[sel.X].Type):
			case strings.HasSuffix(sel.Sel.Name, "Unlock"):
				if !deferred[n] {
					to = append(to, n.Pos())
				}
			default:
				from = append(from, n.End())
			}
		}
		return true
	})
	for _, begin := range from {
		end := decl.End()
		if n := slices.IndexFunc(to, func(p token.Pos) bool { return p > begin }); n >= 0 {
			end = to[n]
		}
		calls = append(calls, w.outward(decl, begin, end, false, map[types.Object]bool{})...)
	}
	return calls
}

// outward returns the calls in a part of a function that leave the package for one
// that may wait, and those of functions that somebody gave it. What a function that is
// called in there calls of its own parameters is judged where they are given.
func (w walk) outward(decl *ast.FuncDecl, begin, end token.Pos, called bool, seen map[types.Object]bool) (calls []string) {
	judge := func(f ast.Expr) {
		switch o := w.p.used(f).(type) {
		case *types.Var:
			if _, function := o.Type().Underlying().(*types.Signature); function && !(called && isParameter(decl, o)) {
				calls = append(calls, o.Name())
			}
		case *types.Func:
			if o.Pkg() != nil && o.Pkg().Path() != module+w.p.dir && !slices.Contains(quick, o.Pkg().Path()) && !slices.Contains(quick, o.FullName()) {
				calls = append(calls, o.FullName())
			}
			if body := w.bodies[o]; body != nil && !seen[o] {
				seen[o] = true
				calls = append(calls, w.outward(body, body.Pos(), body.End(), true, seen)...)
			}
		}
	}
	ast.Inspect(decl.Body, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || call.Pos() < begin || call.Pos() >= end {
			return true
		}
		judge(call.Fun)
		for _, arg := range call.Args {
			if _, function := w.p.info.TypeOf(arg).(*types.Signature); function {
				judge(arg)
			}
		}
		return true
	})
	return calls
}

// used is what a name stands for, nil when it is none.
func (p *typedPackage) used(e ast.Expr) types.Object {
	if sel, ok := e.(*ast.SelectorExpr); ok {
		e = sel.Sel
	}
	id, _ := e.(*ast.Ident)
	return p.info.Uses[id]
}

func isParameter(decl *ast.FuncDecl, o *types.Var) bool {
	return decl.Type.Params.Pos() <= o.Pos() && o.Pos() < decl.Type.Params.End()
}
