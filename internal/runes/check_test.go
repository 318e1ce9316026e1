package runes

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Check says what would become of a rune, and changes nothing.
func TestCheck(t *testing.T) {
	b := one(t, bundle("name = \"a\"\nwhen = { exists = [\"/etc/web\"] }\n[requires]\nprograms = { \"/usr/sbin/haproxy\" = \"haproxy\" }\n[[file]]\npath = \"/etc/y\"\nwhen = { missing = [\"/etc/z\"] }",
		"files/etc/x.tmpl", "\n{{ .Hostnam }}", "files/etc/y", "", "hooks/root", "#!/usr/bin/python3\n"))[0]
	where := image(t, map[string]string{"etc/": ""})
	r, err := b.Check(where, testFacts())
	if err != nil || len(r.Lacks) != 2 || r.Lacks[0].Package != "haproxy" || r.Unmet != "/etc/web is not in the image" || len(r.Errors) != 1 ||
		!strings.HasPrefix(r.Errors[0], "files/etc/x.tmpl:2:") || r.Lacks[1].String() != "hooks/root wants /usr/bin/python3, which is not in the image" {
		t.Errorf("%+v, %v", r, err)
	}
	if left, _ := os.ReadDir(filepath.Join(where.Root, "etc")); len(left) > 0 {
		t.Errorf("it wrote %v", left)
	}
	for _, p := range []string{"/etc/web", "/usr/sbin/haproxy", "/etc/z", "/etc/x", "/usr/bin/python3"} {
		if !slices.Contains(b.Probes(), p) {
			t.Errorf("it looks at %s, which %v lacks", p, b.Probes())
		}
	}
}

func TestLoadDir(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "web")
	if _, err := LoadDir(dir); err == nil {
		t.Error("a folder that is not there is a rune")
	}
	must(t, os.MkdirAll(dir, 0o755))
	if _, err := LoadDir(dir); err == nil || err.Error() != "rune web: no rune.toml in it" {
		t.Error(err)
	}
	must(t, os.WriteFile(filepath.Join(dir, "rune.toml"), []byte("name = \"web\"\n"), 0o644))
	t.Chdir(dir)
	for _, name := range []string{dir, ".", "../web/"} {
		if b, err := LoadDir(name); err != nil || b.Name != "web" {
			t.Errorf("%s: %+v, %v", name, b, err)
		}
	}
	if _, err := LoadDir("rune.toml"); err == nil || !strings.Contains(err.Error(), "is no folder") {
		t.Error(err)
	}
}
