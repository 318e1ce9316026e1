package imagebuild

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
)

// streamed writes a tree and lists what came out.
func streamed(t *testing.T, tree *Tree) []string {
	t.Helper()
	tree.spool = t.TempDir()
	var b bytes.Buffer
	if err := tree.writeTar(context.Background(), &b, nil, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	if left := names(t, tree.spool); len(left) != 0 {
		t.Errorf("copies left behind: %v", left)
	}
	return members(t, &b)
}

// TestATreeThatChangesBeforeItIsRead changes each file in another way once it
// was found: what is written is what it is when it is read, or it is left out.
func TestATreeThatChangesBeforeItIsRead(t *testing.T) {
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
			root := writeTree(t, []file{{name: "d/" + c.name, data: "aaaa"}, {name: "zz", data: "z"}})
			tree, err := Scan(context.Background(), root, nil)
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
			if report := said(tree); (c.report == "") != (report == "") || !strings.Contains(report, c.report) {
				t.Errorf("report %q, want %q", report, c.report)
			}
		})
	}
}

func instead(make func(string) error) func(string) error {
	return func(f string) error { return errors.Join(os.Remove(f), make(f)) }
}

// TestRightsAreThoseOfTheFileThatIsRead replaces a file that everybody may read
// by one that its owner may.
func TestRightsAreThoseOfTheFileThatIsRead(t *testing.T) {
	root := writeTree(t, []file{{name: "f", data: "public"}})
	tree, err := Scan(context.Background(), root, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	f := filepath.Join(root, "f")
	if err := errors.Join(os.WriteFile(f+".new", []byte("secret"), 0o600), os.Rename(f+".new", f)); err != nil {
		t.Fatal(err)
	}
	c, err := tree.entries["f"].open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.header.Mode != 0o600 || c.header.Size != 6 {
		t.Errorf("header %+v", c.header)
	}
}

// TestADirectoryThatBecomesALink must not lead out of the tree.
func TestADirectoryThatBecomesALink(t *testing.T) {
	root := writeTree(t, []file{{name: "d/f", data: "ours"}})
	outside := writeTree(t, []file{{name: "f", data: "secret"}})
	tree, err := Scan(context.Background(), root, nil)
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

func (r *restless) wrap(open func() (*content, error)) func() (*content, error) {
	return func() (*content, error) {
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

// TestAFileThatChangesWhileItIsRead is read a second time, and reported when
// that does not help: small ones, larger ones that are in use, and old ones.
func TestAFileThatChangesWhileItIsRead(t *testing.T) {
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
			root := writeTree(t, []file{{name: "f", data: noise(c.size)}, {name: "g", data: "g"}})
			f := filepath.Join(root, "f")
			when := time.Now().Add(-c.age)
			if err := os.Chtimes(f, when, when); err != nil {
				t.Fatal(err)
			}
			tree, err := Scan(context.Background(), root, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tree.Close()
			e := tree.entries["f"]
			e.open = (&restless{f, c.times}).wrap(e.open)
			got := streamed(t, tree)
			if len(got) != 3 || !strings.HasPrefix(got[1], "f|0||"+noise(c.size)) || got[2] != "g|0||g" {
				t.Errorf("%d members, or other bytes", len(got))
			}
			if report := said(tree); strings.Contains(report, "/f: what it holds may be of two times") != c.reported {
				t.Errorf("report %q", report)
			}
		})
	}
}

// TestABuildEndsThoughAReadDoesNot stands for a file on a disk that is gone.
func TestABuildEndsThoughAReadDoesNot(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	stuck := make(chan struct{})
	defer close(stuck)
	err := outlast(ctx, time.Millisecond, func() error {
		cancel()
		<-stuck
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
