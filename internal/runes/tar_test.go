package runes

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// archive makes a tar of the headers; a regular file holds its own name.
func archive(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range headers {
		content := []byte(h.Name)
		if strings.HasSuffix(h.Name, "/rune.toml") {
			content = []byte(`name = "` + strings.TrimPrefix(filepath.Dir(h.Name), "./") + `"`)
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(content))
		} else {
			content = nil
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func reg(name string) tar.Header { return tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644} }

func TestTarRoundTrip(t *testing.T) {
	before := builtins(t)
	var first, second bytes.Buffer
	if err := WriteTar(&first, before); err != nil {
		t.Fatal(err)
	}
	after, errs := ReadTar(bytes.NewReader(first.Bytes()))
	if len(errs) != 0 || names(after) != names(before) {
		t.Fatalf("%s, %v", names(after), errs)
	}
	for i := range before {
		if fmt.Sprint(after[i].tree) != fmt.Sprint(before[i].tree) || fmt.Sprint(after[i].Paths()) != fmt.Sprint(before[i].Paths()) {
			t.Errorf("%s changed on the way", before[i].Name)
		}
	}
	if err := WriteTar(&second, after); err != nil || !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Errorf("the same bundles made another archive (%v)", err)
	}
}

func TestTarKeepsTheModesOfAMediumWithoutModes(t *testing.T) {
	fsys := bundle("name = \"a\"\nexecutable = [\"/bin/tool\"]", "files/etc/conf", "c", "files/bin/tool", "t")
	for _, f := range fsys {
		f.Mode = 0o755
	}
	before, _ := Load(fsys)
	var buf bytes.Buffer
	must(t, WriteTar(&buf, before))
	after, errs := ReadTar(&buf)
	if len(errs) != 0 || after[0].items[0].mode != 0o755 || after[0].items[1].mode != 0o644 {
		t.Errorf("%+v, %v", after, errs)
	}
}

// TestTarIsUnderstoodByTar and its opposite: GNU tar reads ours, we read its.
func TestTarIsUnderstoodByTar(t *testing.T) {
	path, err := exec.LookPath("tar")
	if err != nil {
		t.Skip("no tar program")
	}
	file, dir := filepath.Join(t.TempDir(), "runes.tar"), t.TempDir()
	var buf bytes.Buffer
	must(t, WriteTar(&buf, builtins(t)))
	must(t, os.WriteFile(file, buf.Bytes(), 0o644))
	if out, err := exec.Command(path, "-xf", file, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if unpacked, errs := Load(os.DirFS(dir)); len(errs) != 0 || names(unpacked) != names(builtins(t)) {
		t.Errorf("unpacked: %s, %v", names(unpacked), errs)
	}
	out, err := exec.Command(path, "-cf", "-", "-C", dir, ".").Output()
	must(t, err)
	if packed, errs := ReadTar(bytes.NewReader(out)); len(errs) != 0 || names(packed) != names(builtins(t)) {
		t.Errorf("packed: %s, %v", names(packed), errs)
	}
}

func TestHostileTarIsRefusedWhole(t *testing.T) {
	good := reg("a/rune.toml")
	whole := archive(t, good, reg("a/files/x"))
	sparse := make([]tar.Header, 0, maxFiles+2)
	for i := range maxFiles + 1 {
		sparse = append(sparse, reg(fmt.Sprintf("a/files/%d", i)))
	}
	for _, test := range []struct {
		name string
		data []byte
		want string
	}{
		{"up and out", archive(t, good, reg("a/files/../../../etc/passwd")), "not a plain path"},
		{"up first", archive(t, good, reg("../a/files/x")), "not a plain path"},
		{"absolute", archive(t, good, reg("/etc/passwd")), "not a plain path"},
		{"double slash", archive(t, good, reg("a//files/x")), "not a plain path"},
		{"dot inside", archive(t, good, reg("a/./files/x")), "not a plain path"},
		{"no folder", archive(t, good, reg("x")), "outside of any folder"},
		{"hard link", archive(t, good, tar.Header{Typeflag: tar.TypeLink, Name: "a/files/x", Linkname: "a/rune.toml"}), "entry of type"},
		{"device", archive(t, good, tar.Header{Typeflag: tar.TypeBlock, Name: "a/files/sda", Devmajor: 8}), "entry of type"},
		{"fifo", archive(t, good, tar.Header{Typeflag: tar.TypeFifo, Name: "a/files/pipe"}), "entry of type"},
		{"long link", archive(t, good, tar.Header{Typeflag: tar.TypeSymlink, Name: "a/files/x", Linkname: strings.Repeat("y", maxPath+1)}), "symbolic link to"},
		{"twice", archive(t, good, reg("a/files/x"), reg("a/files/x")), "there twice"},
		{"too many", archive(t, append(sparse, good)...), "too much"},
		{"cut in a file", whole[:1024+20], "unexpected EOF"},
		{"cut between files", whole[:1024], "cut short"},
		{"empty", nil, "cut short"},
		{"no tar", []byte(strings.Repeat("<html>not found</html>", 100)), "invalid tar header"},
	} {
		bundles, errs := ReadTar(bytes.NewReader(test.data))
		if len(bundles) != 0 || len(errs) != 1 || !strings.Contains(errs[0].Error(), test.want) {
			t.Errorf("%s: %d bundles, %v, want %q", test.name, len(bundles), errs, test.want)
		}
	}
}

func TestTarOfNothing(t *testing.T) {
	var buf bytes.Buffer
	must(t, WriteTar(&buf, nil))
	if bundles, errs := ReadTar(&buf); len(bundles) != 0 || len(errs) != 0 {
		t.Errorf("%v, %v", bundles, errs)
	}
}

func TestTarReportsAnImproperRune(t *testing.T) {
	bundles, errs := ReadTar(bytes.NewReader(archive(t, reg("./a/rune.toml"), reg("./b/files/x"))))
	if names(bundles) != "a" || len(errs) != 1 || !strings.Contains(errs[0].Error(), "rune b: no rune.toml") {
		t.Errorf("%s, %v", names(bundles), errs)
	}
}

func FuzzReadTar(f *testing.F) {
	f.Add(archive(f, reg("a/rune.toml"), reg("a/files/x"), tar.Header{Typeflag: tar.TypeSymlink, Name: "a/files/y", Linkname: "/"}))
	f.Add(archive(f, reg("../a/rune.toml")))
	f.Fuzz(func(t *testing.T, data []byte) {
		bundles, _ := ReadTar(bytes.NewReader(data))
		for _, b := range bundles {
			for _, p := range b.Paths() {
				if !strings.HasPrefix(p, "/") || strings.Contains(p, "/../") || strings.HasSuffix(p, "/..") {
					t.Errorf("%s lays %q", b.Name, p)
				}
			}
		}
		var buf bytes.Buffer
		if err := WriteTar(&buf, bundles); err != nil {
			return // a name that tar cannot carry
		}
		if again, errs := ReadTar(&buf); len(errs) != 0 || names(again) != names(bundles) {
			t.Errorf("%s came back as %s, %v", names(bundles), names(again), errs)
		}
	})
}
