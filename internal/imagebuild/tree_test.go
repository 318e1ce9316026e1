package imagebuild

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func linkTree(t *testing.T) *Tree {
	t.Helper()
	root := writeTree(t, []file{{name: "usr/lib/modules/a", data: "A"}, {name: "usr/bin/prog", data: "P", mode: 0o755}})
	for name, target := range map[string]string{
		"lib": "usr/lib", "absolute": "/usr/bin/prog", "above": "../../../usr/bin/prog",
		"loop": "loop", "nowhere": "gone", "usr/chain": "../absolute",
	} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(root, "usr/bin/prog"), filepath.Join(root, "usr/bin/zzz")); err != nil {
		t.Fatal(err)
	}
	tree, err := Scan(context.Background(), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	return tree
}

func TestLinksStayInsideTheTree(t *testing.T) {
	tree := linkTree(t)
	for name, want := range map[string]string{
		"lib/modules/a": "A", "absolute": "P", "above": "P", "usr/chain": "P", "/usr/../usr/bin/prog": "P", "usr/bin/zzz": "P",
	} {
		if data, err := tree.readFile(name); err != nil || string(data) != want {
			t.Errorf("%s: got %q, %v, want %q", name, data, err, want)
		}
	}
	for _, name := range []string{"loop", "nowhere", "lib/none", "lib"} {
		if data, err := tree.readFile(name); err == nil {
			t.Errorf("%s: read %q", name, data)
		}
	}
	if got := tree.list("lib/modules"); !slices.Equal(got, []string{"a"}) {
		t.Errorf("list through a link: %v", got)
	}
}

// TestTarIsTheSameTree compares the index of a directory with that of the tar
// archive GNU tar makes of it.
func TestTarIsTheSameTree(t *testing.T) {
	root := writeTree(t, fakeFiles(t))
	if err := os.Link(filepath.Join(root, "sbin/init"), filepath.Join(root, "sbin/telinit")); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "t.tar")
	runTool(t, "tar", "-C", root, "-cf", archive, ".")
	var streams [2]bytes.Buffer
	for i, source := range []string{root, archive} {
		tree, err := Scan(context.Background(), source, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.writeTar(context.Background(), &streams[i], nil, func(int64) {}); err != nil {
			t.Fatal(err)
		}
		tree.Close()
	}
	a, b := members(t, &streams[0]), members(t, &streams[1])
	if !slices.Equal(a, b) {
		t.Errorf("directory: %v\ntar: %v", a, b)
	}
}

// members lists a tar stream: name, type, link, content.
func members(t *testing.T, r io.Reader) []string {
	t.Helper()
	var list []string
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, strings.Join([]string{h.Name, string(h.Typeflag), h.Linkname, string(data)}, "|"))
	}
}

// TestHardLinks covers a link whose file comes later in name order, one whose
// file is left out, and one to a file that is nowhere.
func TestHardLinks(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "t.tar")
	write := func(headers ...tar.Header) {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, h := range headers {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeReg {
				h.Size = 1
			}
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			if h.Typeflag == tar.TypeReg {
				w.Write([]byte{'x'})
			}
		}
		w.Close()
		if err := os.WriteFile(archive, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	stream := func() ([]string, error) {
		tree, err := Scan(context.Background(), archive, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		var b bytes.Buffer
		if err := tree.writeTar(context.Background(), &b, nil, func(int64) {}); err != nil {
			return nil, err
		}
		return members(t, &b), nil
	}
	write(tar.Header{Typeflag: tar.TypeReg, Name: "b"}, tar.Header{Typeflag: tar.TypeReg, Name: "tmp/hidden"},
		tar.Header{Typeflag: tar.TypeLink, Name: "a", Linkname: "./b"},
		tar.Header{Typeflag: tar.TypeLink, Name: "c", Linkname: "tmp/hidden"},
		tar.Header{Typeflag: tar.TypeLink, Name: "d", Linkname: "tmp/hidden"})
	got, err := stream()
	want := []string{"./|5||", "a|0||x", "b|1|a|", "c|0||x", "d|1|c|"}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	write(tar.Header{Typeflag: tar.TypeLink, Name: "a", Linkname: "gone"})
	if got, err := stream(); err != nil || !slices.Equal(got, []string{"./|5||"}) {
		t.Errorf("link to nothing: %q, %v", got, err)
	}
}

func TestDamagedTar(t *testing.T) {
	root := writeTree(t, fakeFiles(t))
	archive := filepath.Join(t.TempDir(), "t.tar")
	runTool(t, "tar", "-C", root, "-cf", archive, ".")
	if err := os.Truncate(archive, 20000); err != nil {
		t.Fatal(err)
	}
	if _, err := Scan(context.Background(), archive, nil); err == nil {
		t.Error("a truncated archive was taken for a whole one")
	}
	runTool(t, "gzip", archive)
	if _, err := Scan(context.Background(), archive+".gz", nil); err == nil || !strings.Contains(err.Error(), "uncompressed") {
		t.Errorf("a compressed archive: %v", err)
	}
}

func TestLeftOut(t *testing.T) {
	r, err := newRules(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		"proc": false, "proc/1": true, "etc/ssh/ssh_host_rsa_key.pub": true, "etc/ssh/sshd_config": false,
		"home/anna/.cache": true, "home/anna/.config": false, "boot/initrd.img-6.1": true, "boot/vmlinuz-6.1": false,
		"var/log/journal/123": true, "var/log/journal": false, "swap.img": true, "usr/swapfile": false,
	} {
		if got := r.match(name) != nil; got != want {
			t.Errorf("match(%q) = %v", name, got)
		}
	}
	for _, rule := range leaveOut {
		for _, p := range rule.patterns {
			if _, err := filepath.Match(p, "x"); err != nil || rule.reason == "" {
				t.Errorf("pattern %q: %v, reason %q", p, err, rule.reason)
			}
		}
	}
}

func TestScrubFstab(t *testing.T) {
	in := "# remark\nUUID=1 / ext4 defaults 0 1\nUUID=2 none swap sw 0 0\nsrv:/h /home nfs rw 0 0\ntmpfs /tmp tmpfs size=1g 0 0\n\n"
	want := "# remark\n# not on a diskless node: UUID=1 / ext4 defaults 0 1\n# not on a diskless node: UUID=2 none swap sw 0 0\nsrv:/h /home nfs rw 0 0\ntmpfs /tmp tmpfs size=1g 0 0\n\n"
	if got := string(scrubFstab([]byte(in))); got != want {
		t.Errorf("got:\n%s", got)
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`/a\040b`: "/a b", `/a\134b`: `/a\b`, `/a\04`: `/a\04`, `\`: `\`, "/x": "/x"} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q", in, got)
		}
	}
}
