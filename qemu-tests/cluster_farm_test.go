package scenarios

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/docpage"
	"viver.lan/qemu-tests/harness"
)

// balancer is the role of the machine that people ask.
const balancer = "web-farm/balancer"

// webFarm is the rune that docs/runes-tutorial.md makes, made as the page says.
func webFarm(t *testing.T) string {
	t.Helper()
	root, err := harness.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root, "docs", "runes-tutorial.md"))
	if err != nil {
		t.Fatal(err)
	}
	making, _, _ := strings.Cut(string(text), "\n## 4. ")
	dir := t.TempDir()
	docpage.Page{Text: making, Dir: dir, Env: []string{"PATH=" + out(t, "bin") + ":" + os.Getenv("PATH")}}.Follow(t)
	return filepath.Join(dir, "web-farm")
}

// farmServes asks the balancer of the farm from each machine, until each machine that is
// not the balancer has answered.
func farmServes(t *testing.T, vms []*harness.VM) {
	var asked *harness.VM
	eventually(t, vms[0], "one to be the balancer", func() bool {
		i := slices.IndexFunc(vms, func(vm *harness.VM) bool { return holdsRole(t, vm, balancer) })
		if i >= 0 {
			asked = vms[i]
		}
		return i >= 0
	})
	url := "http://" + ready(t, asked) + ":8080/"
	for _, from := range vms {
		for _, web := range vms {
			if web != asked {
				holds(t, from, "<h1>"+ready(t, web)+"</h1>", "python3", "-c",
					"import sys, urllib.request as u; print(u.urlopen(sys.argv[1], timeout=10).read().decode())", url)
			}
		}
	}
}
