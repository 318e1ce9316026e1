package runekit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/manifest"
	"viver.lan/internal/runes"
	"viver.lan/internal/testlinux"
)

// kinds are the names of the skeletons.
func kinds() []string {
	var list []string
	for _, k := range Kinds() {
		name, _, _ := strings.Cut(k, " ")
		list = append(list, name)
	}
	return list
}

// Each skeleton is a sound rune as it stands, also on a medium.
func TestSkeletonsAreSound(t *testing.T) {
	entries, err := skeletons.ReadDir("skeleton")
	if err != nil || len(entries) != len(kinds()) {
		t.Errorf("%d skeletons, %v named", len(entries), kinds())
	}
	for _, kind := range kinds() {
		dir := filepath.Join(t.TempDir(), "web-farm")
		made, err := New(dir, kind)
		if err != nil || len(made) < 2 {
			t.Fatalf("%s: %v, %v", kind, made, err)
		}
		b, err := runes.LoadDir(dir)
		if err != nil || b.OnFAT() != nil {
			t.Fatalf("%s: %v, %v", kind, err, b.OnFAT())
		}
		if r, err := CheckAlone(b); err != nil || len(r.Errors)+len(r.Lacks) > 0 {
			t.Errorf("%s: %+v, %v", kind, r, err)
		}
		for _, name := range made {
			if data, err := os.ReadFile(name); err != nil || strings.Contains(string(data), "NAME") || strings.Contains(name, "NAME") {
				t.Errorf("%s: %s: %v", kind, name, err)
			}
		}
		if _, err := New(dir, kind); err == nil {
			t.Errorf("%s: it is made again over the first", kind)
		}
	}
	if _, err := New(filepath.Join(t.TempDir(), "Web_Farm"), "role"); err == nil {
		t.Error("a name that no rune may have is taken")
	}
	if _, err := New(filepath.Join(t.TempDir(), "web"), "car"); err == nil || !strings.Contains(err.Error(), "role (") {
		t.Error(err)
	}
}

// image makes a directory with the root file system of an image.
func image(t *testing.T, files map[string]string) string {
	t.Helper()
	mksquashfs, root, dir := testlinux.Tool(t, "mksquashfs"), t.TempDir(), t.TempDir()
	for name, data := range files {
		p := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(p), 0o755)
		if target, ok := strings.CutPrefix(data, "->"); ok && err == nil {
			err = os.Symlink(target, p)
		} else if err == nil {
			err = os.WriteFile(p, []byte(data), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	testlinux.Run(t, mksquashfs, root, filepath.Join(dir, manifest.Root), "-comp", "zstd", "-no-progress", "-quiet")
	return dir
}

// An image is asked through its links, also absolute ones and those of folders, and for
// kernel modules too.
func TestCheckImage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "farm")
	for name, data := range map[string]string{
		"rune.toml": `name = "farm"
when = { init = ["systemd"], missing = ["/etc/nofarm"] }
[requires]
distribution = ["debian"]
programs = { "/usr/bin/python3" = "python3-minimal", "/sbin/haproxy" = "haproxy" }
modules = { nfsd = "linux-image-amd64", loop = "linux-image-amd64" }
`,
		"files/etc/conf.tmpl": "{{ existing }}{{ if not (match `^old` existing) }}{{ .NoSuchFact }}{{ end }}",
		"hooks/root":          "#!/bin/sh\n",
	} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := runes.LoadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"bin": "->usr/bin", "sbin": "->/usr/sbin", "lib": "->usr/lib", "usr/bin/sh": "->dash", "usr/bin/dash": "",
		"usr/bin/python3": "->/etc/alternatives/python3", "etc/alternatives/python3": "->/usr/bin/python3.11", "usr/bin/python3.11": "",
		"usr/sbin/haproxy": "", "usr/sbin/init": "->/lib/systemd/systemd", "usr/lib/systemd/systemd": "",
		"etc/os-release": "->../usr/lib/os-release", "usr/lib/os-release": "ID=debian\n", "etc/conf": "old\n",
		"usr/lib/modules/6.1.0/modules.dep": "kernel/fs/nfsd/nfsd.ko.xz:\n", "usr/lib/modules/6.1.0/modules.builtin": "kernel/drivers/block/loop.ko\n",
	}
	if r, err := CheckImage(t.Context(), image(t, files), b); err != nil || len(r.Errors)+len(r.Lacks) > 0 || r.Unmet != "" {
		t.Errorf("complete: %+v, %v", r, err)
	}
	for _, test := range []struct{ name, data, want string }{
		{"usr/bin/python3.11", "", "/usr/bin/python3 is not in the image (package python3-minimal)"},
		{"usr/sbin/haproxy", "", "/sbin/haproxy is not in the image (package haproxy)"},
		{"usr/bin/dash", "", "hooks/root wants /bin/sh, which is not in the image"},
		{"usr/lib/modules/6.1.0/modules.dep", "kernel/fs/x.ko:\n", "the kernel module nfsd is not in the image (package linux-image-amd64)"},
		{"usr/lib/os-release", "ID=fedora\n", "the rune is for debian, the image is fedora"},
		{"etc/conf", "new\n", "files/etc/conf.tmpl:1:"},
		{"etc/nofarm", "x", "/etc/nofarm is in the image"},
		{"usr/sbin/init", "->/bin/busybox", "systemd"},
	} {
		changed := map[string]string{}
		for name, data := range files {
			changed[name] = data
		}
		if changed[test.name] = test.data; test.data == "" {
			delete(changed, test.name)
		}
		r, err := CheckImage(t.Context(), image(t, changed), b)
		said := append(r.Errors, r.Unmet)
		for _, m := range r.Lacks {
			said = append(said, m.String())
		}
		if err != nil || !strings.Contains(strings.Join(said, "\n"), test.want) {
			t.Errorf("%s: %q, %v, want %q", test.name, said, err, test.want)
		}
	}
	if _, err := CheckImage(t.Context(), t.TempDir(), b); err == nil {
		t.Error("a directory without an image is one")
	}
}
