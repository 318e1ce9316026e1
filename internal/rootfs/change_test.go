package rootfs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"viver.lan/internal/imagetree"
	"viver.lan/internal/testlinux"
)

func ignore(int64, int64) {}

// streamed writes a tree and lists what came out.
func streamed(t *testing.T, tree *imagetree.Tree) []string {
	t.Helper()
	spool := t.TempDir()
	var b bytes.Buffer
	if err := writeTar(context.Background(), tree, &b, spool, ignore); err != nil {
		t.Fatal(err)
	}
	if left := testlinux.Names(t, spool); len(left) != 0 {
		t.Errorf("copies left behind: %v", left)
	}
	return testlinux.Members(t, &b)
}

// TestFileChangesBeforeRead changes each file in another way once it
// was found: what is written is what it is when it is read, or it is left out.
func TestFileChangesBeforeRead(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(file string) error
		want   string // member of that name, "" for none
		report string
	}{
		{"goes-away", os.Remove, "", "it went away"},
		{"shrinks", func(f string) error { return os.WriteFile(f, []byte("b"), 0o644) }, "0||b", ""},
		{"grows", func(f string) error { return os.WriteFile(f, []byte("cccccccc"), 0o644) }, "0||cccccccc", ""},
		{"becomes-a-queue", instead(func(f string) error { return syscall.Mkfifo(f, 0o644) }), "", "became something else"},
		{"becomes-a-link", instead(func(f string) error { return os.Symlink("/etc/passwd", f) }), "", "became something else"},
		{"becomes-a-directory", instead(func(f string) error { return os.Mkdir(f, 0o755) }), "", "became something else"},
		{"is-replaced", func(f string) error {
			return errors.Join(os.WriteFile(f+".new", []byte("secret"), 0o600), os.Rename(f+".new", f))
		}, "0||secret", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := testlinux.Write(t, []testlinux.File{{Name: "d/" + c.name, Data: "aaaa"}, {Name: "zz", Data: "z"}})
			tree, err := imagetree.Scan(context.Background(), root, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			if err := c.change(filepath.Join(root, "d", c.name)); err != nil {
				t.Fatal(err)
			}
			want := []string{"./|5||", "d/|5||", "d/" + c.name + "|" + c.want, "zz|0||z"}
			if c.want == "" {
				want = slices.Delete(want, 2, 3)
			}
			if got := streamed(t, tree); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			if report := reported(tree); (c.report == "") != (report == "") || !strings.Contains(report, c.report) {
				t.Errorf("report %q, want %q", report, c.report)
			}
		})
	}
}

func instead(make func(string) error) func(string) error {
	return func(f string) error { return errors.Join(os.Remove(f), make(f)) }
}

// TestDirectoryReplacedByLink must not lead out of the tree.
func TestDirectoryReplacedByLink(t *testing.T) {
	root := testlinux.Write(t, []testlinux.File{{Name: "d/f", Data: "ours"}})
	outside := testlinux.Write(t, []testlinux.File{{Name: "f", Data: "secret"}})
	tree, err := imagetree.Scan(context.Background(), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	d := filepath.Join(root, "d")
	if err := errors.Join(os.RemoveAll(d), os.Symlink(outside, d)); err != nil {
		t.Fatal(err)
	}
	if got, want := streamed(t, tree), []string{"./|5||", "d/|5||"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// restless is a file that is written to during the first reads of it.
type restless struct {
	file  string
	times int
}

func (r *restless) wrap(open func() (*imagetree.Content, error)) func() (*imagetree.Content, error) {
	return func() (*imagetree.Content, error) {
		c, err := open()
		if err == nil && r.times > 0 {
			r.times--
			c.ReaderAt = writtenTo{c.ReaderAt, r.file}
		}
		return c, err
	}
}

type writtenTo struct {
	io.ReaderAt
	file string
}

func (w writtenTo) ReadAt(p []byte, off int64) (int, error) {
	n, err := w.ReaderAt.ReadAt(p, off)
	if f, ferr := os.OpenFile(w.file, os.O_WRONLY|os.O_APPEND, 0); ferr == nil {
		_, ferr = f.WriteString("+")
		err = errors.Join(ferr, f.Close(), err)
	}
	if errors.Is(err, io.EOF) {
		err = io.EOF
	}
	return n, err
}

// TestFileChangesDuringRead is read a second time, and reported when
// that does not help: small ones, larger ones that are in use, and old ones.
func TestFileChangesDuringRead(t *testing.T) {
	for _, c := range []struct {
		name     string
		size     int
		age      time.Duration
		times    int
		reported bool
	}{
		{"small, once", 1000, 0, 1, false},
		{"small, always", 1000, 0, 1000, true},
		{"large, once", 3 << 20, 0, 1, false},
		{"large, always", 3 << 20, 0, 1000, true},
		{"large and old", 3 << 20, time.Hour, 1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := testlinux.Write(t, []testlinux.File{{Name: "f", Data: testlinux.Noise(c.size)}, {Name: "g", Data: "g"}})
			f := filepath.Join(root, "f")
			when := time.Now().Add(-c.age)
			if err := os.Chtimes(f, when, when); err != nil {
				t.Fatal(err)
			}
			tree, err := imagetree.Scan(context.Background(), root, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			err = tree.Walk(func(name string, e *imagetree.Entry) error {
				if name == "f" {
					e.Open = (&restless{f, c.times}).wrap(e.Open)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			got := streamed(t, tree)
			if len(got) != 3 || !strings.HasPrefix(got[1], "f|0||"+testlinux.Noise(c.size)) || got[2] != "g|0||g" {
				t.Errorf("%d testlinux.Members, or other bytes", len(got))
			}
			if report := reported(tree); strings.Contains(report, "/f: its content may mix old and new") != c.reported {
				t.Errorf("report %q", report)
			}
		})
	}
}

// TestSourceVanishes takes a directory away, and with it all that is in it, before it is
// scanned to its end and before it is read.
func TestSourceVanishes(t *testing.T) {
	root := testlinux.Write(t, []testlinux.File{{Name: "a/f", Data: "f"}, {Name: "a/sub/g", Data: "g"}, {Name: "z", Data: "z"}})
	tree, err := imagetree.Scan(t.Context(), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	if err := os.RemoveAll(filepath.Join(root, "a")); err != nil {
		t.Fatal(err)
	}
	if got, want := streamed(t, tree), []string{"./|5||", "a/|5||", "a/sub/|5||", "z|0||z"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, name := range []string{"/a/f: left out, it went away", "/a/sub/g: left out, it went away"} {
		if !strings.Contains(reported(tree), name) {
			t.Errorf("not reported: %s", name)
		}
	}
}

// TestArchiveIsCutOff while it is read: that is no running system, of which an image of
// what is left is of use.
func TestArchiveIsCutOff(t *testing.T) {
	root := testlinux.Write(t, []testlinux.File{{Name: "a", Data: "first"}, {Name: "large", Data: testlinux.Noise(3 << 20)}})
	writeHoles(t, filepath.Join(root, "sparse"), hole{testlinux.Noise(1 << 20), 1 << 20}, hole{testlinux.Noise(1 << 20), 0})
	for _, name := range []string{"large", "sparse"} {
		archive := filepath.Join(t.TempDir(), "t.tar")
		testlinux.Run(t, "tar", "--sparse", "-C", root, "-cf", archive, "a", name)
		tree, err := imagetree.Scan(t.Context(), archive, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		if err := os.Truncate(archive, 1<<20); err != nil {
			t.Fatal(err)
		}
		if err := writeTar(t.Context(), tree, io.Discard, t.TempDir(), ignore); err == nil || !strings.Contains(err.Error(), "/"+name) || !strings.Contains(err.Error(), "cut off") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
