package imagetree

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"viver.lan/internal/exclude"
	"viver.lan/internal/testlinux"
)

func linkTree(t *testing.T) *Tree {
	t.Helper()
	root := testlinux.Write(t, []testlinux.File{{Name: "usr/lib/modules/a", Data: "A"}, {Name: "usr/bin/prog", Data: "P", Mode: 0o755}})
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

func listed(t *testing.T, tree *Tree, dir string) (names []string) {
	t.Helper()
	list, err := tree.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func TestLinksStayInsideTheTree(t *testing.T) {
	tree := linkTree(t)
	for name, want := range map[string]string{
		"lib/modules/a": "A", "absolute": "P", "above": "P", "usr/chain": "P", "/usr/../usr/bin/prog": "P", "usr/bin/zzz": "P",
	} {
		if data, err := tree.ReadFile(name); err != nil || string(data) != want {
			t.Errorf("%s: got %q, %v, want %q", name, data, err, want)
		}
	}
	for _, name := range []string{"loop", "nowhere", "lib/none", "lib"} {
		if data, err := tree.ReadFile(name); err == nil {
			t.Errorf("%s: read %q", name, data)
		}
	}
	if got := listed(t, tree, "lib/modules"); !slices.Equal(got, []string{"a"}) {
		t.Errorf("list through a link: %v", got)
	}
}

func TestDamagedTar(t *testing.T) {
	root := testlinux.Write(t, testlinux.Files(t))
	archive := filepath.Join(t.TempDir(), "t.tar")
	testlinux.Run(t, "tar", "-C", root, "-cf", archive, ".")
	if err := os.Truncate(archive, 20000); err != nil {
		t.Fatal(err)
	}
	if _, err := Scan(context.Background(), archive, nil); err == nil {
		t.Error("a truncated archive was taken for a whole one")
	}
	testlinux.Run(t, "gzip", archive)
	if _, err := Scan(context.Background(), archive+".gz", nil); err == nil || !strings.Contains(err.Error(), "not a whole tar") {
		t.Errorf("a compressed archive: %v", err)
	}
}

// TestFileSystem reads a tree as bootfiles do, from a directory and an archive.
func TestFileSystem(t *testing.T) {
	root := testlinux.Write(t, testlinux.Files(t))
	if err := errors.Join(os.Symlink("sbin/init", filepath.Join(root, "init")), os.Link(filepath.Join(root, "sbin/init"), filepath.Join(root, "sbin/telinit"))); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "t.tar")
	testlinux.Run(t, "tar", "-C", root, "-cf", archive, ".")
	for _, source := range []string{root, archive} {
		tree, err := Scan(context.Background(), source, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		for _, name := range []string{"sbin/init", "sbin/telinit", "init"} {
			fi, err := fs.Stat(tree, name)
			if err != nil || fi.Mode() != 0o755 || fi.Size() != 10 {
				t.Errorf("%s: %v, %v", name, fi, err)
			}
		}
		f, err := tree.Open("usr/share/text")
		if err != nil {
			t.Fatal(err)
		}
		if err := iotest.TestReader(f, []byte(strings.Repeat("all work and no play\n", 1000))); err != nil {
			t.Error(err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if got, err := fs.Glob(tree, "boot/vmlinuz*"); err != nil || !slices.Equal(got, []string{"boot/vmlinuz-" + testlinux.Release}) {
			t.Errorf("glob: %q, %v", got, err)
		}
		if _, err := fs.ReadFile(tree, "swapfile"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("what stays out: %v", err)
		}
	}
}

func TestAddAndRemove(t *testing.T) {
	tree := linkTree(t)
	tree.Add("boot/z", []byte("Z"), time.Unix(1e9, 0))
	tree.Add("lib/b", []byte("B"), time.Unix(1e9, 0))
	if got := listed(t, tree, "."); !slices.IsSorted(got) || !slices.Contains(got, "boot") {
		t.Errorf("the root holds %q", got)
	}
	if data, err := tree.ReadFile("usr/lib/b"); err != nil || string(data) != "B" {
		t.Errorf("added through a link: %q, %v", data, err)
	}
	tree.LeaveOut(exclude.OtherKernel, "lib/modules")
	tree.LeaveOut(exclude.OtherKernel, "nowhere")
	if got := listed(t, tree, "usr/lib"); !slices.Equal(got, []string{"b"}) {
		t.Errorf("left is %q", got)
	}
	// A hard link needs the file that its first name led to.
	tree.LeaveOut(exclude.OtherKernel, "usr/bin/prog")
	if data, err := tree.ReadFile("usr/bin/zzz"); err != nil || string(data) != "P" {
		t.Errorf("the other name: %q, %v", data, err)
	}
}

// TestPermissionsOfReplacedFile replaces a file that everybody may read
// by one that its owner may.
func TestPermissionsOfReplacedFile(t *testing.T) {
	root := testlinux.Write(t, []testlinux.File{{Name: "f", Data: "public"}})
	tree, err := Scan(context.Background(), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	f := filepath.Join(root, "f")
	if err := errors.Join(os.WriteFile(f+".new", []byte("secret"), 0o600), os.Rename(f+".new", f)); err != nil {
		t.Fatal(err)
	}
	c, err := tree.entries["f"].Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.Header.Mode != 0o600 || c.Header.Size != 6 {
		t.Errorf("header %+v", c.Header)
	}
}

// TestWalkBeginsWithTheFirst: each behind its directories, also through links, and
// everything once.
func TestWalkBeginsWithTheFirst(t *testing.T) {
	root := testlinux.Write(t, []testlinux.File{{Name: "a/one"}, {Name: "a/two"}, {Name: "usr/lib/x/so"}, {Name: "z"}})
	for name, target := range map[string]string{"lib": "usr/lib", "loop": "loop", "absolute": "/z"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(root, "a/one"), filepath.Join(root, "a/same")); err != nil {
		t.Fatal(err)
	}
	tree, err := Scan(context.Background(), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	for _, c := range []struct {
		name  string
		first []string
		found int
		want  string
	}{
		{"none", nil, 0, ". a a/one a/same a/two absolute lib loop usr usr/lib usr/lib/x usr/lib/x/so z"},
		{"in that order", []string{"z", "a/two"}, 2, ". z a a/two a/one a/same absolute lib loop usr usr/lib usr/lib/x usr/lib/x/so"},
		{"through links", []string{"lib/x/so", "absolute"}, 2, ". usr usr/lib usr/lib/x usr/lib/x/so z a a/one a/same a/two absolute lib loop"},
		{"a further name of a file", []string{"a/same"}, 1, ". a a/same a/one a/two absolute lib loop usr usr/lib usr/lib/x usr/lib/x/so z"},
		{"twice", []string{"z", "z"}, 2, ". z a a/one a/same a/two absolute lib loop usr usr/lib usr/lib/x usr/lib/x/so"},
		{"no files", []string{"gone", "a", "loop", ".", "../z/..", "a/one/below"}, 0, ". a a/one a/same a/two absolute lib loop usr usr/lib usr/lib/x usr/lib/x/so z"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if found := tree.First(c.first); found != c.found {
				t.Errorf("found %d, want %d", found, c.found)
			}
			var got []string
			if err := tree.Walk(func(name string, e *Entry) error { got = append(got, name); return nil }); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(got, " "); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}
