package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/docpage"
	"viver.lan/internal/ether"
	"viver.lan/internal/identity"
	"viver.lan/internal/manifest"
	"viver.lan/internal/roles"
	"viver.lan/internal/runes"
	"viver.lan/internal/testlinux"
)

// farmNode is a machine of the tutorial's network.
func farmNode(last byte, claims ...roles.Name) roles.Node {
	return roles.Node{ID: identity.ID{last}, MAC: ether.MAC{0x52, 0x54, 0, 0, 0, last}, Claims: claims}
}

// factsOf are those of one machine when the roles of a bundle are given away to some.
func factsOf(b runes.Bundle, self int, nodes []roles.Node) runes.Facts {
	assigned := roles.Assign(b.Offers(), nodes, nil)
	var f runes.Facts
	for i, n := range nodes {
		m := runes.MemberFact{Hostname: "node-" + strings.ReplaceAll(n.MAC.String(), ":", ""), Address: "10.77.0." + fmt.Sprint(n.MAC[5]), MAC: n.MAC}
		for _, name := range slices.SortedFunc(maps.Keys(assigned), roles.Name.Compare) {
			if slices.Contains(assigned[name], n.ID) {
				m.Roles = append(m.Roles, name.String())
			}
		}
		f.Members = append(f.Members, m)
		if i == self {
			f.Hostname, f.Address, f.Roles = m.Hostname, m.Address, m.Roles
		}
	}
	return f
}

// TestTutorial follows docs/runes-tutorial.md as far as it needs no machines, and then
// works out what three machines make of its rune, and two when the balancer has died.
func TestTutorial(t *testing.T) {
	mksquashfs, haproxy := testlinux.Tool(t, "mksquashfs"), testlinux.Tool(t, "haproxy")
	text, err := os.ReadFile("../../docs/runes-tutorial.md")
	if err != nil {
		t.Fatal(err)
	}
	page, _, _ := strings.Cut(string(text), "\n## 5. ")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "viver")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	writeFile(t, "tree/usr/bin/python3", "")
	writeFile(t, "images/out/debian/about", "")
	testlinux.Run(t, mksquashfs, "tree", "images/out/debian/"+manifest.Root, "-comp", "zstd", "-quiet", "-no-progress")
	becomes, steps := docpage.Page{Text: page, Env: []string{asViver + "=1", "PATH=" + bin + ":/usr/sbin:/usr/bin:/sbin:/bin"}, Kind: "cfg"}.Follow(t)
	if steps < 14 {
		t.Fatalf("the page has %d steps", steps)
	}

	b, err := runes.LoadDir("web-farm")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"usr/bin/python3", "usr/bin/env", "usr/sbin/haproxy", "run/x"} {
		writeFile(t, "root/"+p, "")
	}
	system, err := runes.OpenSystem(runes.Target{Root: "root"})
	if err != nil {
		t.Fatal(err)
	}
	defer system.Close()

	balancer := roles.Name{Rune: "web-farm", Role: "balancer"}
	three := []roles.Node{farmNode(1, balancer), farmNode(2), farmNode(3)}
	w := system.Wanted(b, factsOf(b, 0, three))
	if w.Skipped != "" || len(w.Files) != 1 || len(w.Services) != 1 || w.Services[0].Err != nil ||
		w.Services[0].Start[1] != "FARM=10.77.0.2 10.77.0.3 " || w.Services[0].User != "haproxy" {
		t.Fatalf("the balancer wants %+v", w)
	}
	if err := system.Lay(b, w.Files[0]); err != nil {
		t.Fatal(err)
	}
	config, err := os.ReadFile("root/run/web-farm/haproxy.cfg")
	if err != nil || len(becomes) != 1 || !strings.Contains(string(config), becomes[0]) {
		t.Errorf("%v: the page shows %q, this was laid:\n%s", err, becomes, config)
	}
	testlinux.Run(t, haproxy, "-c", "-f", "root/run/web-farm/haproxy.cfg")

	web := system.Wanted(b, factsOf(b, 1, three))
	if len(web.Files) != 0 || len(web.Services) != 1 || !slices.Contains(web.Services[0].Start, "http.server") || web.Services[0].Err != nil {
		t.Errorf("a web server wants %+v", web)
	}

	// Each of the two may be the next balancer; the other goes on as it is.
	two, balancers := three[1:], 0
	for i := range two {
		w := system.Wanted(b, factsOf(b, i, two))
		if len(w.Files) == 1 {
			balancers++
			if len(w.Services) != 1 || w.Services[0].Start[1] != "FARM=10.77.0."+fmt.Sprint(two[1-i].MAC[5])+" " {
				t.Errorf("the next balancer wants %+v", w)
			}
		}
	}
	if balancers != 1 {
		t.Errorf("%d balancers after the death of the first", balancers)
	}
}
