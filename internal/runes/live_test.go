package runes

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"viver.lan/internal/mountinfo"
)

// running opens an image as a system that runs: its /run is in it.
func running(t *testing.T, files map[string]string) (*System, Target) {
	t.Helper()
	where := Target{Root: image(t, files).Root}
	s, err := OpenSystem(where)
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s, where
}

func TestWanted(t *testing.T) {
	const manifest = `name = "a"
[[role]]
name = "server"
wants = "one"
[[service]]
name = "web"
role = "server"
start = ["/bin/web", "{{ len .Members }}"]
[[service]]
name = "missing"
start = ["/bin/missing"]
[[service]]
name = "never"
start = ["/bin/web"]
when = { exists = ["/never"] }
[[file]]
path = "/run/web.conf"
roles = ["server"]
[[file]]
path = "/etc/hosts"
live = true
[[file]]
path = "/etc/bad"
live = true
`
	b := one(t, bundle(manifest, "files/run/web.conf", "x", "files/etc/hosts.tmpl", "{{ .Hostname }}\n", "files/etc/bad.tmpl", "{{ index .DNS 7 }}", "files/etc/once", "y"))[0]
	s, where := running(t, map[string]string{"bin/web": "", "etc/hosts": "node-1a2b\n"})
	facts := testFacts()
	w := s.Wanted(b, facts)
	if len(w.Files) != 2 || w.Files[0].Path != "/etc/bad" || w.Files[0].Err == nil || !w.Files[1].Current || w.Files[1].Passing {
		t.Errorf("without the role: files %+v", w.Files)
	}
	if len(w.Services) != 1 || w.Services[0].Err == nil || !strings.Contains(w.Services[0].Err.Error(), "/bin/missing is not in the image") {
		t.Errorf("without the role: services %+v", w.Services)
	}

	facts.Roles, facts.Hostname = []string{"a/server"}, "other"
	w = s.Wanted(b, facts)
	if len(w.Files) != 3 || w.Files[1].Current || !w.Files[2].Passing || len(w.Services) != 2 || strings.Join(w.Services[0].Start, " ") != "/bin/web 0" {
		t.Fatalf("with the role: %+v", w)
	}
	for _, f := range w.Files[1:] {
		must(t, s.Lay(b, f))
	}
	if err := s.Lay(b, w.Files[0]); err == nil {
		t.Error("a file is laid that could not be rendered")
	}
	for name, want := range map[string]string{"etc/hosts": "other\n", "run/web.conf": "x"} {
		if data, err := os.ReadFile(filepath.Join(where.Root, name)); err != nil || string(data) != want {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	must(t, s.Remove("/run/web.conf"))
	must(t, s.Remove("/run/web.conf"))
	if _, err := os.Stat(filepath.Join(where.Root, "run/web.conf")); err == nil {
		t.Error("it is not removed")
	}
	if s.Remove("/etc") == nil {
		t.Error("a directory is removed")
	}
}

// Two bundles that lay one path while the system runs are both named; the first has it.
func TestOwners(t *testing.T) {
	const manifest = "order = 50\n[[file]]\npath = \"/etc/x\"\nlive = true\n"
	bundles := one(t, fstest.MapFS{
		"a/rune.toml": {Data: []byte("name = \"a\"\n" + manifest)}, "a/files/etc/x.tmpl": {},
		"b/rune.toml": {Data: []byte("name = \"b\"\n" + manifest)}, "b/files/etc/x.tmpl": {},
		"c/rune.toml": {Data: []byte("name = \"c\"\n")}, "c/files/etc/x": {},
	})
	owners, err := Owners(bundles)
	if err == nil || !strings.Contains(err.Error(), "the runes a and b both lay /etc/x") || len(owners) != 1 || owners["/etc/x"] != "a" {
		t.Errorf("%v, %v", owners, err)
	}
}

func TestEqual(t *testing.T) {
	read := func(content string) Bundle {
		return one(t, bundle("name = \"a\"\n[settings]\nx = \"\"\n", "files/x", content))[0]
	}
	if !read("1").Equal(read("1")) || read("1").Equal(read("2")) {
		t.Error("bundles are not told apart by their files")
	}
	set, err := Configure([]Bundle{read("1")}, map[string]map[string]string{"a": {"x": "y"}})
	must(t, err)
	if set[0].Equal(read("1")) {
		t.Error("bundles are not told apart by their settings")
	}
}

// A file server may be off: whether /home is there is known without it, and nothing is
// looked up or laid below.
func TestFileServer(t *testing.T) {
	b := one(t, bundle("name = \"a\"\nwhen = { exists = [\"/home\"], plain = [\"/home\"] }\n[[file]]\npath = \"/data/f\"\nlive = true\n", "files/data/f.tmpl", "x"))[0]
	s, where := running(t, map[string]string{"home/f": "of the server"})
	must(t, os.Symlink("home", filepath.Join(where.Root, "data")))
	s.t.mounts = []mountinfo.Mount{{Point: "/", Type: "overlay"}, {Point: "/home", Type: "nfs4"}}
	if reason := s.Skips(b, testFacts()); reason != "" {
		t.Error(reason)
	}
	w := s.Wanted(b, testFacts())
	if len(w.Files) != 1 || w.Files[0].Current {
		t.Fatalf("%+v", w.Files)
	}
	for what, err := range map[string]error{"Lay": s.Lay(b, w.Files[0]), "Remove": s.Remove("/data/f"), "Keep": s.Keep("/home/f", t.TempDir()), "Restore": s.Restore("/home/sub/f", t.TempDir())} {
		if !errors.Is(err, errServer) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := s.t.lstat("/home"); !errors.Is(err, errServer) {
		t.Error(err)
	}
	if !s.Exists("/data/nobody/knows") || s.t.onServer("/homes") {
		t.Error("want what a server has taken to be there, and only that")
	}
}

// A link that a user may have made leads root nowhere, neither now nor when it comes
// after the path was resolved; root's own are followed.
func TestLinksOfUsersAreNotFollowed(t *testing.T) {
	s, where := running(t, map[string]string{"root/.ssh/id": "root's", "opt/link": "->/root/.ssh", "home/anna/.ssh": "->/root/.ssh", "home/bob/dir/id": "bob's"})
	at := func(name string) string { return filepath.Join(where.Root, name) }
	must(t, os.Chmod(at("home/anna"), 0o777)) // as one that is the user's
	b := one(t, bundle("name = \"a\"", "files/home/anna/.ssh/id", "evil", "files/opt/link/new", "fine"))[0]
	originals := t.TempDir()
	for what, err := range map[string]error{
		"lay": s.t.lay(b.items[0], nil), "remove": s.Remove("/home/anna/.ssh/id"), "keep": s.Keep("/home/anna/.ssh/id", originals),
		"restore": s.Restore("/home/anna/.ssh/id", originals),
	} {
		if err == nil || !strings.Contains(err.Error(), "/home/anna/.ssh is a link that a user may have made") {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, s.t.lay(b.items[1], nil))
	if got := read(t, where, "/root/.ssh/new"); got != "fine" {
		t.Errorf("%q", got)
	}

	resolved, err := s.t.resolveParent("/home/bob/dir/id")
	must(t, err)
	must(t, os.Rename(at("home/bob/dir"), at("home/bob/old")))
	must(t, os.Symlink("../../root/.ssh", at("home/bob/dir")))
	if err := s.t.in(resolved, (*os.Root).Remove); err == nil {
		t.Error("a link is followed that came later")
	}
	if _, _, err := s.t.read(resolved, maxRendered); err == nil {
		t.Error("a link is read through that came later")
	}
	if got := read(t, where, "/root/.ssh/id"); got != "root's" {
		t.Errorf("%q", got)
	}
}

// A file may be larger than what a template gives, and is still seen to be there.
func TestLargeFilesAreCurrent(t *testing.T) {
	b := one(t, bundle("name = \"a\"", "files/large", strings.Repeat("x", maxRendered+1)))[0].AllLive()
	s, where := running(t, nil)
	f := s.Wanted(b, testFacts()).Files[0]
	must(t, s.Lay(b, f))
	if !s.Wanted(b, testFacts()).Files[0].Current {
		t.Error("it is to be laid again")
	}
	must(t, os.Truncate(filepath.Join(where.Root, "large"), maxRendered+2))
	if s.Wanted(b, testFacts()).Files[0].Current {
		t.Error("a longer one is taken for the same")
	}
}

// What was kept comes back with its mode and owner.
func TestRestoreTheWholeMode(t *testing.T) {
	s, where := running(t, map[string]string{"bin/su": "su"})
	name, originals := filepath.Join(where.Root, "bin/su"), t.TempDir()
	if os.Getuid() == 0 {
		must(t, os.Chown(name, 3001, 3002))
	}
	must(t, os.Chmod(name, 0o750|os.ModeSetuid))
	before, err := os.Stat(name)
	must(t, err)
	must(t, s.Keep("/bin/su", originals))
	must(t, os.Remove(name))
	must(t, s.Restore("/bin/su", originals))
	after, err := os.Stat(name)
	must(t, err)
	uid, gid := ownerOf(before)
	if u, g := ownerOf(after); after.Mode() != before.Mode() || u != uid || g != gid || read(t, where, "/bin/su") != "su" {
		t.Errorf("%v of %d:%d, want %v of %d:%d", after.Mode(), u, g, before.Mode(), uid, gid)
	}
}
