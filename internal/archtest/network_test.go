package archtest

import (
	"go/ast"
	"go/token"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// notOnTheWire are packages whose ports no node opens, with the reason.
var notOnTheWire = map[string]string{
	"internal/bench":  "measures on one machine",
	"internal/netbed": "networks of namespaces, for tests and measurements",
	"internal/sim":    "has no sockets",
}

// portConstants are the port numbers that the code names: constants that are
// called Port, or end so. The value says where each is.
func portConstants(t *testing.T) map[int]string {
	t.Helper()
	ports := map[int]string{}
	for _, f := range sources(t) {
		top := strings.Join(strings.SplitN(f.dir+"//", "/", 3)[:2], "/")
		if f.isTest() || strings.HasPrefix(f.dir, "qemu-tests") || notOnTheWire[top] != "" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			decl, ok := n.(*ast.GenDecl)
			if !ok || decl.Tok != token.CONST {
				return true
			}
			for _, spec := range decl.Specs {
				v := spec.(*ast.ValueSpec)
				for i, name := range v.Names {
					if !strings.HasSuffix(name.Name, "Port") && name.Name != "port" || i >= len(v.Values) {
						continue
					}
					if lit, ok := v.Values[i].(*ast.BasicLit); ok && lit.Kind == token.INT {
						if port, err := strconv.Atoi(lit.Value); err == nil {
							ports[port] = f.dir + "/" + f.name + ": " + name.Name
						}
					}
				}
			}
			return true
		})
	}
	if len(ports) < 8 {
		t.Fatalf("found the ports %v only; the rule would hold for nothing", slices.Sorted(maps.Keys(ports)))
	}
	return ports
}

// The page for network administrators has every port that the code has, and no
// other.
func TestNetworkPageNamesEveryPort(t *testing.T) {
	page, err := os.ReadFile("../../docs/network.md")
	if err != nil {
		t.Fatal(err)
	}
	code, named := portConstants(t), map[int]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| (?:UDP|TCP) (\d+) \|.*$`).FindAllStringSubmatch(string(page), -1) {
		port, err := strconv.Atoi(row[1])
		if err != nil {
			t.Fatal(err)
		}
		named[port] = true
		if code[port] == "" {
			t.Errorf("docs/network.md has port %d, and no constant in the code does: %s", port, row[0])
		}
	}
	for port, where := range code {
		if !named[port] {
			t.Errorf("%s is port %d, which docs/network.md does not have: an administrator has to know it", where, port)
		}
	}
}
