package runes

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func bundle(manifest string, files ...string) fstest.MapFS {
	fsys := fstest.MapFS{"a/rune.toml": {Data: []byte(manifest), Mode: 0o644}}
	for i := 0; i < len(files); i += 2 {
		fsys["a/"+files[i]] = &fstest.MapFile{Data: []byte(files[i+1]), Mode: 0o644}
	}
	return fsys
}

func TestLoadSaysWhatIsWrong(t *testing.T) {
	for _, test := range []struct {
		name     string
		manifest string
		files    []string
		want     string // "" for a proper rune
	}{
		{"minimal", `name = "a"`, nil, ""},
		{"from Windows", "\xef\xbb\xbfname = \"a\"\r\norder = 7\r\n", []string{"Readme.txt", "", "files/Thumbs.db", "", "files/._x", ""}, ""},
		{"unknown key", "name = \"a\"\nexecutables = []", nil, "rune a: rune.toml:2: no such key: executables"},
		{"unknown condition", "name = \"a\"\nwhen = { exist = [] }", nil, "rune.toml:2: no such key: exist"},
		{"syntax", "name = \"a\"\norder = =", nil, "rune.toml:2: "},
		{"wrong type", "name = \"a\"\n\norder = \"first\"", nil, "rune.toml:3: "},
		{"name and folder", `name = "b"`, nil, `rune.toml:1: name: "b", but the folder is called "a"`},
		{"no name", ``, nil, "rune.toml: name: \"\" is no name of a rune: want up to 63"},
		{"order", "name = \"a\"\norder = 100", nil, "rune.toml:2: order: 100: want 0 to 99"},
		{"fact", "name = \"a\"\nwhen = { facts = [\"HostName\"] }", nil, `rune.toml:2: when: there is no fact "HostName"; there are Hostname`},
		{"typo in a folder", `name = "a"`, []string{"file/etc/x", ""}, "file/etc/x does not belong here"},
		{"moment", `name = "a"`, []string{"hooks/late", "#!/bin/sh"}, "no such moment; there are root, booted, role-gained"},
		{"hook without interpreter", `name = "a"`, []string{"hooks/root", "echo"}, "names its interpreter"},
		{"hook", `name = "a"`, []string{"hooks/root", "#! /bin/sh -e \n"}, ""},
		{"template syntax", `name = "a"`, []string{"files/x.tmpl", "{{ .Hostname"}, "rune a: files/x.tmpl:1: unclosed action"},
		{"template function", `name = "a"`, []string{"files/x.tmpl", "{{ shell }}"}, `rune a: files/x.tmpl:1: function "shell" not defined`},
		{"twice", `name = "a"`, []string{"files/x.tmpl", "", "files/x", ""}, "/x is there twice"},
		{"executable that is not there", "name = \"a\"\nexecutable = [\"/x\"]", nil, "rune.toml:2: executable: no file /x in files/"},
		{"dots", "name = \"a\"\nexecutable = [\"/../x\"]", nil, "no plain path"},
		{"symlink dots", "name = \"a\"\n[symlinks]\n\"/x\" = \"y\"\n\"/etc/../../x\" = \"y\"", nil, "rune.toml:4: symlinks./etc/../../x: "},
		{"symlink over file", "name = \"a\"\nsymlinks = { \"/x\" = \"y\" }", []string{"files/x", ""}, "is in files/ too"},
		{"rule for nothing", "name = \"a\"\n[[file]]\npath = \"/x\"", nil, "rune.toml:3: file[0].path: the rune lays no /x"},
		{"setuid", "name = \"a\"\n[[file]]\npath = \"/x\"\nmode = \"4755\"", []string{"files/x", ""}, "rune.toml:4: file[0].mode: \"4755\": want octal permissions"},
		{"condition on a directory", "name = \"a\"\n[[file]]\npath = \"/d\"\nwhen = { exists = [\"/y\"] }", []string{"files/d/x", ""}, "rune.toml:2: file[0]: /d is a directory, which takes a mode"},
		{"mode of a link", "name = \"a\"\nsymlinks = { \"/x\" = \"y\" }\n[[file]]\npath = \"/x\"\nmode = \"644\"", nil, "rune.toml:5: file[0].mode: a symbolic link has none"},
		{"the second of an array", "name = \"a\"\n[[file]]\npath = \"/x\"\n\n[[file]]\npath = \"/y\"\nwhen = { exists = [\"y\", \"/../z\"] }", []string{"files/x", "", "files/y", ""}, "rune.toml:7: file[1].when: \"/../z\""},
		{"version 1", "version = 1\nname = \"a\"", nil, ""},
		{"of a later VIVER", "name = \"a\"\nversion = 2\nspell = \"\"", nil, "rune.toml:2: version: 2; this VIVER knows version 1 of rune.toml"},
		{"requirements", "name = \"a\"\n[requires]\nprograms = { \"/usr/sbin/iceccd\" = \"icecc\" }\nmodules = { nfsd = \"linux-image-amd64\" }\ndistribution = [\"debian\"]", nil, ""},
		{"a program's path", "name = \"a\"\n[requires]\nmodules = { nfsd = \"linux-image\" }\nprograms = { \"/bin/../x\" = \"icecc\" }", nil, "rune.toml:4: requires.programs./bin/../x: "},
		{"a package", "name = \"a\"\n[requires.programs]\n\"/x\" = \"two words\"", nil, "rune.toml:3: requires.programs./x: \"two words\": want the name of the package"},
		{"a module", "name = \"a\"\nrequires = { modules = { \"nfsd.ko\" = \"linux-image\" } }", nil, "rune.toml:2: requires.modules.nfsd.ko: want a kernel module's name"},
	} {
		bundles, errs := Load(bundle(test.manifest, test.files...))
		switch {
		case test.want == "" && (len(errs) != 0 || len(bundles) != 1):
			t.Errorf("%s: %v", test.name, errs)
		case test.want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), test.want) || len(bundles) != 0):
			t.Errorf("%s: %v, want %q", test.name, errs, test.want)
		}
	}
}

func TestLoadKeepsTheGoodOnes(t *testing.T) {
	fsys := bundle(`name = "a"`)
	fsys["b/rune.toml"] = &fstest.MapFile{Data: []byte("name = \"b\"\norder = 1")}
	fsys["broken/rune.toml"] = &fstest.MapFile{Data: []byte("nonsense")}
	fsys["System Volume Information/x"] = &fstest.MapFile{}
	fsys["notes.txt"] = &fstest.MapFile{}
	bundles, errs := Load(fsys)
	if names(bundles) != "b, a" || len(errs) != 1 || !strings.Contains(errs[0].Error(), "rune broken") {
		t.Errorf("%s, %v", names(bundles), errs)
	}
}

func TestLoadBoundsWhatItReads(t *testing.T) {
	fsys := bundle(`name = "a"`, "files/big", strings.Repeat("x", maxBytes+1))
	if _, errs := Load(fsys); len(errs) != 1 || !strings.Contains(errs[0].Error(), "too much") {
		t.Error(errs)
	}
}

func TestLoadFromAFileSystemWithoutModes(t *testing.T) {
	fsys := bundle("name = \"a\"\nexecutable = [\"/bin/tool\"]", "files/etc/conf", "", "files/bin/tool", "")
	for _, f := range fsys {
		f.Mode = 0o755 // what vfat says
	}
	bundles, errs := Load(fsys)
	if len(errs) != 0 || bundles[0].items[0].mode != 0o755 || bundles[0].items[1].mode != 0o644 {
		t.Errorf("%+v, %v", bundles, errs)
	}
}

func TestLoadTakesLinksAsTheyStand(t *testing.T) {
	dir := t.TempDir()
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("secret"), 0o600))
	must(t, os.MkdirAll(filepath.Join(dir, "a/files/etc"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "a/rune.toml"), []byte(`name = "a"`), 0o644))
	must(t, os.Symlink(secret, filepath.Join(dir, "a/files/etc/x")))
	must(t, os.Symlink("/", filepath.Join(dir, "b")))
	bundles, errs := Load(os.DirFS(dir))
	if len(errs) != 0 || len(bundles) != 1 || bundles[0].items[0].link != secret || len(bundles[0].items[0].data) != 0 {
		t.Errorf("%+v, %v", bundles, errs)
	}
}

func TestMergeAndWithout(t *testing.T) {
	built := []Bundle{{Name: "b", Order: 50}, {Name: "a", Order: 50}, {Name: "z", Order: 1}}
	medium := []Bundle{{Name: "a", Order: 60, Description: "medium's"}, {Name: "c", Order: 50}}
	all := Merge(built, medium)
	if names(all) != "z, b, c, a" || all[3].Description != "medium's" {
		t.Error(names(all))
	}
	kept, err := Without(all, []string{"z", "y"})
	if names(kept) != "b, c, a" || err == nil || !strings.Contains(err.Error(), `"y"`) {
		t.Error(names(kept), err)
	}
	if !slices.EqualFunc(all, Merge(built, medium), func(a, b Bundle) bool { return a.Name == b.Name }) {
		t.Error("Without changed its argument")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A key of as many parts as fit costs no more than its bytes.
func TestKeyLinesAreBounded(t *testing.T) {
	deep := strings.Repeat("a.", maxManifest/2-8) + "b = 1"
	nested := strings.Repeat("a = { ", 5000) + strings.Repeat(" }", 5000)
	for _, source := range []string{deep, "[" + strings.TrimSuffix(deep, " = 1") + "]", nested} {
		if n := len(keyLines(source)); n > maxKeyParts {
			t.Errorf("%d keys are remembered of one", n)
		}
	}
}

func FuzzManifest(f *testing.F) {
	for _, name := range []string{"hostname", "network", "ssh", "console", "x11"} {
		data, err := os.ReadFile("../../overlay/runes/" + name + "/rune.toml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	f.Add("name = \"a\"\n[[role]]\nname = \"r\"\nwants = \"no\"\n[[role.x]]\ny.z = [{ a = 1 }, { b = { c = 2 } }]\n[role.x.q]\nr = 1")
	f.Add("name = \"a\"\nsymlinks = { \"/a/../b\" = \"\" }\n[[file]]\npath = \"//\"\nmode = \"-1\"")
	f.Fuzz(func(t *testing.T, manifest string) {
		bundles, errs := Load(bundle(manifest, "files/etc/x.tmpl", "{{ .Hostname }}"))
		for key, line := range keyLines(manifest) {
			if key == "" || line < 1 || line > strings.Count(manifest, "\n")+1 {
				t.Errorf("the key %q in line %d", key, line)
			}
		}
		if len(bundles)+len(errs) != 1 {
			t.Fatalf("%d bundles, %v", len(bundles), errs)
		}
		for _, b := range bundles {
			for _, p := range b.Paths() {
				if clean, err := rootPath(p); err != nil || clean != p {
					t.Errorf("path %q: %v", p, err)
				}
			}
		}
	})
}
