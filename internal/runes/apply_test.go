package runes

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

func one(t *testing.T, fsys fstest.MapFS) []Bundle {
	t.Helper()
	bundles, errs := Load(fsys)
	for _, err := range errs {
		t.Fatal(err)
	}
	return bundles
}

// TestNothingLeavesTheRoot lays files through every kind of link and looks at
// what lies outside afterwards.
// A fact is asked for where a rune that is wanted mentions it, in a template or a hook.
func TestUses(t *testing.T) {
	bare, x11 := image(t, nil), image(t, map[string]string{"usr/bin/Xorg": ""})
	bundles := builtins(t)
	if Uses(bare, bundles, "GraphicsDriver") || !Uses(x11, bundles, "GraphicsDriver") || Uses(x11, bundles, "NoSuchFact") {
		t.Error("the graphics driver is asked for where there is no Xorg, or not where there is one")
	}
	hook := one(t, fstest.MapFS{
		"hello/rune.toml":  {Data: []byte("name = \"hello\"\n[when]\nfacts = [\"Hostname\"]\n")},
		"hello/hooks/root": {Data: []byte("#!/bin/sh\necho $VIVER_GRAPHICSDRIVER\n")},
	})
	if !Uses(bare, hook, "GraphicsDriver") {
		t.Error("a hook's fact is not asked for")
	}
	program := one(t, fstest.MapFS{
		"hello/rune.toml":            {Data: []byte("name = \"hello\"\n")},
		"hello/files/usr/bin/driver": {Data: []byte("GraphicsDriver VIVER_GRAPHICSDRIVER")},
	})
	if Uses(bare, program, "GraphicsDriver") {
		t.Error("a fact is asked for that only a file has in it which is laid as it stands")
	}
}

func TestNothingLeavesTheRoot(t *testing.T) {
	outside := t.TempDir()
	victim := filepath.Join(outside, "victim")
	must(t, os.WriteFile(victim, []byte("untouched"), 0o644))
	where := image(t, map[string]string{
		"etc/final":     "->" + victim,
		"etc/absolute":  "->" + outside,
		"etc/climbing":  "->" + strings.Repeat("../", 30) + outside,
		"etc/hop":       "->absolute",
		"etc/loop":      "->loop",
		"var/run":       "->/run",
		"etc/inside":    "->/opt/conf",
		"etc/back/link": "->../../../../etc",
		"etc/afile":     "",
		"etc/adir/x":    "",
	})
	bundles := one(t, bundle(`name = "a"`,
		"files/etc/final", "a",
		"files/etc/absolute/one", "b",
		"files/etc/climbing/two", "c",
		"files/etc/hop/three", "d",
		"files/etc/loop/x", "e",
		"files/var/run/four", "f",
		"files/etc/inside/deep/five", "g",
		"files/etc/back/link/six", "h",
		"files/etc/afile/x", "i",
		"files/etc/adir", "j",
	))
	r := apply(t, where, bundles, Facts{})["a"]
	if entries, _ := os.ReadDir(outside); len(entries) != 1 {
		t.Errorf("the rune left the root: %v", entries)
	}
	if data, _ := os.ReadFile(victim); string(data) != "untouched" {
		t.Errorf("the rune wrote through a link: %q", data)
	}
	for name, want := range map[string]string{
		"/etc/final":          "a", // replaced, not followed
		outside + "/one":      "b", // what the link means inside the root
		outside + "/two":      "c",
		outside + "/three":    "d",
		"/run/four":           "f",
		"/opt/conf/deep/five": "g",
		"/etc/six":            "h",
	} {
		if got := read(t, where, name); got != want {
			t.Errorf("%s holds %q, want %q", name, got, want)
		}
	}
	if r.Outcome != Degraded {
		t.Errorf("%+v", r)
	}
	for _, want := range []string{"/etc/loop/x: ", "symbolic links", "/etc/afile/x: ", "not a directory", "/etc/adir: there is a directory"} {
		if !strings.Contains(r.Reason, want) {
			t.Errorf("reason %q lacks %q", r.Reason, want)
		}
	}
	if len(r.Files) != 7 {
		t.Errorf("files: %v", r.Files)
	}
}

func TestExistsMeansTheRootNotThisMachine(t *testing.T) {
	where := image(t, map[string]string{
		"etc/passwd": "->/no/such/file", // /etc/passwd exists here
		"sbin":       "->/usr/sbin",
		"usr/sbin/x": "",
		"sock":       "->/run/there",
	})
	must(t, os.WriteFile(filepath.Join(where.Run, "there"), nil, 0o644))
	target, err := openTarget(where)
	must(t, err)
	defer target.Close()
	for p, want := range map[string]bool{
		"/etc/passwd": false, "/sbin/x": true, "/sbin/y": false, "/sock": true, "/run/there": true, "/etc/passwd/x": false, "/": true, "/run": true,
	} {
		if got := target.exists(p); got != want {
			t.Errorf("exists %s: %v", p, got)
		}
	}
	if !target.isLink("/sbin") || target.isLink("/usr") || target.isLink("/none") {
		t.Error("isLink")
	}
}

func TestConditions(t *testing.T) {
	where := image(t, map[string]string{"a": "", "link": "->a"})
	target, err := openTarget(where)
	must(t, err)
	defer target.Close()
	f := Facts{Hostname: "h", AuthorizedKeys: []string{}}
	for _, test := range []struct {
		c    Conditions
		want string
	}{
		{Conditions{}, ""},
		{Conditions{Exists: []string{"/a", "/link"}, Missing: []string{"/b"}, Any: []string{"/b", "/a"}, Plain: []string{"/a", "/b"}, Facts: []string{"Hostname"}}, ""},
		{Conditions{Exists: []string{"/a", "/b"}}, "/b is not in the image"},
		{Conditions{Missing: []string{"/a"}}, "/a is in the image"},
		{Conditions{Any: []string{"/b", "/c"}}, "none of /b, /c is in the image"},
		{Conditions{Plain: []string{"/link"}}, "/link is a symbolic link"},
		{Conditions{Facts: []string{"AuthorizedKeys"}}, "the fact AuthorizedKeys is not known"},
		{Conditions{Facts: []string{"ConsoleLogin"}}, "the fact ConsoleLogin is not known"},
	} {
		if got := test.c.unmet(target, f); got != test.want {
			t.Errorf("%+v: %q, want %q", test.c, got, test.want)
		}
	}
}

func TestOneRuneFailsTheOthersDoNot(t *testing.T) {
	fsys := bundle("name = \"a\"\norder = 10", "files/etc/good", "g", "files/etc/bad.tmpl", "{{ .NoSuchFact }}", "files/etc/worse.tmpl", `{{ match "(" "" }}`)
	fsys["b/rune.toml"] = &fstest.MapFile{Data: []byte("name = \"b\"")}
	fsys["b/files/etc/host.tmpl"] = &fstest.MapFile{Data: []byte("{{ .Hostname }}")}
	where := image(t, nil)
	results := apply(t, where, one(t, fsys), Facts{Hostname: "h"})
	if r := results["a"]; r.Outcome != Degraded || len(r.Files) != 1 || !strings.Contains(r.Reason, "NoSuchFact") || !strings.Contains(r.Reason, "/etc/worse: ") {
		t.Errorf("%+v", r)
	}
	if r := results["b"]; r.Outcome != Applied || read(t, where, "/etc/host") != "h" {
		t.Errorf("%+v", r)
	}
}

func TestOrderDecidesWhoIsLast(t *testing.T) {
	fsys := bundle("name = \"a\"\norder = 60", "files/x", "from a")
	fsys["b/rune.toml"] = &fstest.MapFile{Data: []byte("name = \"b\"\norder = 40")}
	fsys["b/files/x"] = &fstest.MapFile{Data: []byte("from b")}
	where := image(t, nil)
	apply(t, where, one(t, fsys), Facts{})
	if got := read(t, where, "/x"); got != "from a" {
		t.Error(got)
	}
}

func TestApplyWithoutARoot(t *testing.T) {
	r := apply(t, Target{Root: "/no/such/root"}, one(t, bundle(`name = "a"`)), Facts{})["a"]
	if r.Outcome != Degraded || !strings.Contains(r.Reason, "/no/such/root") {
		t.Errorf("%+v", r)
	}
}

func TestApplyStopsWhenItsTimeIsOver(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	where := image(t, nil)
	r := Apply(ctx, where, one(t, bundle(`name = "a"`, "files/x", "")), Facts{}, slog.New(slog.DiscardHandler))
	if len(r) != 1 || r[0].Outcome != Degraded || !strings.Contains(r[0].Reason, "canceled") {
		t.Errorf("%+v", r)
	}
}

func TestWhatIsRightIsNotWrittenAgain(t *testing.T) {
	where := image(t, map[string]string{"etc/same": "x", "etc/mode": "x", "etc/.other.rune-part": "left by a power cut"})
	before, err := os.Stat(filepath.Join(where.Root, "etc/same"))
	must(t, err)
	bundles := one(t, bundle("name = \"a\"\nexecutable = [\"etc/mode\"]\nsymlinks = { \"/etc/link\" = \"same\" }",
		"files/etc/same", "x", "files/etc/mode", "x", "files/etc/other", "y", "files/etc/empty", "", "files/etc/nothing.tmpl", ""))
	for range 2 {
		r := apply(t, where, bundles, Facts{})["a"]
		if r.Outcome != Applied || strings.Join(r.Files, " ") != "/etc/empty /etc/link /etc/mode /etc/other /etc/same" {
			t.Errorf("%+v", r)
		}
	}
	after, err := os.Stat(filepath.Join(where.Root, "etc/same"))
	must(t, err)
	if !os.SameFile(before, after) {
		t.Error("a file that was right already was written again")
	}
	if info, err := os.Stat(filepath.Join(where.Root, "etc/mode")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v %v", info, err)
	}
	entries, _ := os.ReadDir(filepath.Join(where.Root, "etc"))
	if len(entries) != 5 {
		t.Errorf("etc holds %v", entries)
	}
}

func TestForeignFactsCannotWriteLines(t *testing.T) {
	f, errs := Facts{
		Hostname: "x\n0.0.0.0 bank", Domain: "a..b", Interface: "eth0 eth1", Address: "10.0.0.1/8",
		Gateway: "fe80::1%eth0", DNS: []string{"10.0.0.1", "evil"}, AuthorizedKeys: []string{"ok", "a\nb"}, PrefixLength: 129,
		GraphicsDriver: `"`, SerialConsoles: []string{"ttyS0", "$(x)"}, MachineID: strings.Repeat("A", 32),
	}.Checked()
	if len(errs) != 11 || f.MachineID != "" || f.Hostname != "" || f.Domain != "" || f.Interface != "" || f.Address != "" || f.Gateway != "" ||
		len(f.DNS) != 1 || len(f.AuthorizedKeys) != 1 || f.PrefixLength != 0 || f.GraphicsDriver != "" || len(f.SerialConsoles) != 1 {
		t.Errorf("%+v\n%v", f, errs)
	}
	if _, errs := testFacts().Checked(); len(errs) != 0 {
		t.Error(errs)
	}
	where := image(t, nil)
	r := apply(t, where, one(t, bundle("name = \"a\"\nwhen = { facts = [\"Hostname\"] }")), Facts{Hostname: "-x"})["a"]
	if r.Outcome != Skipped {
		t.Errorf("%+v", r)
	}
}

func TestPathsAreTemplatesToo(t *testing.T) {
	where := image(t, nil)
	bundles := one(t, bundle(`name = "a"`, "files/etc/x.{{.Interface}}.tmpl", "y", "files/etc/{{ `..` }}.tmpl", "z"))
	r := apply(t, where, bundles, Facts{Interface: "eth0"})["a"]
	if read(t, where, "/etc/x.eth0") != "y" || r.Outcome != Degraded || !strings.Contains(r.Reason, "no plain path") {
		t.Errorf("%+v", r)
	}
}

// A rune for another image is skipped, and the reason says what would help.
func TestRequirements(t *testing.T) {
	const manifest = "name = \"a\"\n[requires]\ndistribution = [\"debian\"]\n[requires.programs]\n\"/usr/sbin/iceccd\" = \"icecc\"\n" +
		"[requires.modules]\nnfsd = \"linux-image-amd64\"\nnfs-layout = \"linux-image-amd64\"\n"
	const modules = "usr/lib/modules/6.1.0-1-amd64/"
	complete := func() map[string]string {
		return map[string]string{
			"lib": "->usr/lib", "usr/sbin/iceccd": "", "etc/os-release": "->../usr/lib/os-release", "usr/lib/os-release": "PRETTY_NAME=\"Raspbian\"\nID=raspbian\nID_LIKE=\"debian\"\n",
			modules + "modules.dep": "kernel/fs/nfsd/nfsd.ko.xz: kernel/fs/lockd.ko.xz\n", modules + "modules.builtin": "kernel/fs/nfs/nfs_layout.ko\n",
		}
	}
	for _, test := range []struct {
		name   string
		change func(map[string]string)
		want   string
	}{
		{"complete", func(map[string]string) {}, ""},
		{"another distribution", func(files map[string]string) { files["usr/lib/os-release"] = "ID=fedora\n" }, "the rune is for debian, the image is fedora"},
		{"no os-release", func(files map[string]string) { delete(files, "usr/lib/os-release"); delete(files, "etc/os-release") }, "the image is unknown"},
		{"program", func(files map[string]string) { delete(files, "usr/sbin/iceccd") }, "needs icecc: /usr/sbin/iceccd is not in the image"},
		{"module", func(files map[string]string) { files[modules+"modules.dep"] = "kernel/fs/lockd.ko.xz:\n" }, "needs linux-image-amd64: the kernel module nfsd is not in the image"},
		{"all", func(files map[string]string) { clear(files) }, "needs icecc, linux-image-amd64: the rune is for debian, the image is unknown; /usr/sbin/iceccd is not"},
	} {
		files := complete()
		test.change(files)
		r := apply(t, image(t, files), one(t, bundle(manifest, "files/etc/x", "")), Facts{})["a"]
		if want := map[bool]Outcome{true: Applied, false: Skipped}[test.want == ""]; r.Outcome != want || !strings.Contains(r.Reason, test.want) || (len(r.Files) > 0) != (want == Applied) {
			t.Errorf("%s: %+v, want %q", test.name, r, test.want)
		}
	}
}

// Two runes that own one file are both named, when they are put together and when both lay
// it; a template that starts from what is there owns nothing.
func TestTwoRunesOfOneFile(t *testing.T) {
	two := func(first, second string) []Bundle {
		return one(t, fstest.MapFS{
			"a/rune.toml": {Data: []byte("name = \"a\"\n")}, "a/files/etc/motd.tmpl": {Data: []byte(first)},
			"b/rune.toml": {Data: []byte("name = \"b\"\n")}, "b/files/etc/motd.tmpl": {Data: []byte(second)},
		})
	}
	const want = "/etc/motd is laid by the runes a and b: that of b stays, which goes later"
	where := image(t, nil)
	r := apply(t, where, two("one\n", "two\n"), Facts{})
	if err := Conflicts(two("one\n", "two\n")); err == nil || err.Error() != want || r["a"].Outcome != Applied || r["b"].Outcome != Degraded || r["b"].Reason != want {
		t.Errorf("%v, %+v", err, r)
	}
	if got := read(t, where, "/etc/motd"); got != "two\n" {
		t.Errorf("%q", got)
	}
	where = image(t, nil)
	r = apply(t, where, two("one\n", "{{ existing }}two\n"), Facts{})
	if err := Conflicts(two("one\n", "{{ existing }}two\n")); err != nil || r["b"].Outcome != Applied || read(t, where, "/etc/motd") != "one\ntwo\n" {
		t.Errorf("%v, %+v", err, r)
	}
	if err := Conflicts(builtins(t)); err != nil {
		t.Error(err)
	}
}
