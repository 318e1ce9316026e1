package squashmap

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"viver.lan/internal/testlinux"
)

// noise is content that no other file has.
func noise(seed byte, n int) string {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return string(b)
}

// sample are files of each kind: in a fragment, of whole blocks, with an end in a block of
// its own, mostly holes, empty, compressed well, with an odd name.
func sample() []testlinux.File {
	files := []testlinux.File{
		{Name: "a/small", Data: noise(1, 5000)}, {Name: "a/tiny", Data: "x"}, {Name: "a/empty"},
		{Name: "b/one-block", Data: noise(2, 128<<10)}, {Name: "b/blocks", Data: noise(3, 300<<10)},
		{Name: "b/text", Data: strings.Repeat("all work and no play\n", 40000)},
		{Name: "odd/new\nline \xe9", Data: noise(4, 200<<10)},
		{Name: "deep/" + strings.Repeat("d/", 50) + "f", Data: noise(5, 70<<10)},
	}
	for i := range 700 { // more than a list's head counts, and than a block of a table holds
		files = append(files, testlinux.File{Name: fmt.Sprintf("many/a-rather-long-name-of-a-file-%03d", i), Data: noise(9, 200+i)})
	}
	return files
}

// squashfs makes a file system of a directory and returns its bytes.
func squashfs(t testing.TB, root string, flags ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "root.squashfs")
	testlinux.Run(t, testlinux.Tool(t, "mksquashfs"), append([]string{root, out, "-comp", "zstd", "-Xcompression-level", "1", "-no-progress", "-quiet"}, flags...)...)
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestFilesLieWhereTheMapSays lets unsquashfs judge: when the bytes of an extent are
// damaged, it cannot read this file any more, and no file that is elsewhere.
func TestFilesLieWhereTheMapSays(t *testing.T) {
	root := testlinux.Write(t, sample())
	if err := os.Truncate(filepath.Join(root, "b/one-block"), 9<<20); err != nil { // its end is a hole
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(root, "b/blocks"), filepath.Join(root, "z-blocks")); err != nil {
		t.Fatal(err)
	}
	for _, flags := range [][]string{nil, {"-no-fragments"}, {"-always-use-fragments"}, {"-noI", "-noD", "-noF"}, {"-b", "16K"}} {
		t.Run(strings.Join(flags, ""), func(t *testing.T) {
			whole := squashfs(t, root, flags...)
			files, err := Read(bytes.NewReader(whole), int64(len(whole)))
			if err != nil {
				t.Fatal(err)
			}
			if n := len(files); n != 8-1+700 {
				t.Errorf("%d files", n)
			}
			image := filepath.Join(t.TempDir(), "fs")
			for _, f := range files {
				if !strings.HasPrefix(f.Path, "many/") || strings.HasSuffix(f.Path, "99") {
					judge(t, image, whole, f, files)
				}
			}
		})
	}
}

// judge damages each block of f in the file image, and reads f and another file.
func judge(t *testing.T, image string, whole []byte, f File, files []File) {
	t.Helper()
	intact := cat(t, image, whole, f.Path)
	for _, e := range f.Blocks {
		damaged := slices.Clone(whole)
		for i := range e.Length {
			damaged[e.Offset+i] ^= 0x55
		}
		if cat(t, image, damaged, f.Path) == intact {
			t.Errorf("%q does not lie at %v", f.Path, e)
		}
		for _, other := range files {
			if other.Path != f.Path && !slices.Contains(other.Blocks, e) {
				if cat(t, image, damaged, other.Path) != cat(t, image, whole, other.Path) {
					t.Errorf("%q lies at %v, said to be of %q", other.Path, e, f.Path)
				}
				break
			}
		}
	}
}

// cat is a file of a file system, which it writes to the file image, and what unsquashfs
// says about it.
func cat(t *testing.T, image string, fs []byte, name string) string {
	t.Helper()
	if err := os.WriteFile(image, fs, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := exec.Command("unsquashfs", "-no-wildcards", "-cat", image, name)
	cmd.Stdout = &out
	err := cmd.Run()
	return fmt.Sprint(out.String(), err)
}

func TestReadRefuses(t *testing.T) {
	good := squashfs(t, testlinux.Write(t, sample()[:4]))
	gzip := func() []byte {
		out := filepath.Join(t.TempDir(), "gzip")
		testlinux.Run(t, "mksquashfs", testlinux.Write(t, sample()[:1]), out, "-comp", "gzip", "-no-progress", "-quiet")
		data, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}()
	for _, c := range []struct {
		name, want string
		data       []byte
	}{
		{"nothing", "it is none", nil},
		{"text", "it is none", []byte(strings.Repeat("text", 100))},
		{"gzip", "compressed by method 1", gzip},
		{"version", "version 3.0", patch(good, 28, 3)},
		{"cut off", "it is cut off", good[:len(good)/2]},
		{"a place that is negative", "negative", patch(good, 71, 0xff)},
		{"a table beyond the end", "beyond the end", patch(good, 69, 0xff)},
		{"paths that nothing can open", "nested too deep", nested(t)},
		{"blocks of no bytes", "blocks of", patch(patch(good, 14, 0), 13, 0)},
	} {
		t.Run(c.name, func(t *testing.T) {
			files, err := Read(bytes.NewReader(c.data), int64(len(c.data)))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%d files, %v; want an error with %q", len(files), err, c.want)
			}
		})
	}
}

// nested returns a file system with a file at a path longer than PATH_MAX, which only an
// archive can hold.
func nested(t *testing.T) []byte {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	name := strings.Repeat(strings.Repeat("d", 250)+"/", maxPath/250+1) + "f"
	err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: 1})
	if _, werr := w.Write([]byte("x")); err != nil || werr != nil {
		t.Fatal(err, werr)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return testlinux.Squashfs(t, &archive)
}

func patch(data []byte, at int, b byte) []byte {
	out := slices.Clone(data)
	out[at] = b
	return out
}

// TestList compares the names with those that were packed.
func TestList(t *testing.T) {
	root := testlinux.Write(t, sample())
	if err := os.Symlink("usr/bin", filepath.Join(root, "bin")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"second", "third"} {
		if err := os.Link(filepath.Join(root, "a/small"), filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	var want []Entry
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		e := Entry{Path: strings.TrimPrefix(p, root+"/"), Kind: Regular}
		switch {
		case p == root:
			return err
		case d.IsDir():
			e.Kind = Dir
		case d.Type() == fs.ModeSymlink:
			e.Kind, e.Target = Link, "usr/bin"
		}
		want = append(want, e)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	whole := squashfs(t, root)
	got, err := List(bytes.NewReader(whole), int64(len(whole)))
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%d names, want %d, %v", len(got), len(want), err)
	}
}

// TestContents compares what is read with what was packed, and the sums of one content
// in whatever blocks it is.
func TestContents(t *testing.T) {
	root := testlinux.Write(t, sample())
	if err := os.Truncate(filepath.Join(root, "b/one-block"), 2<<20); err != nil { // its end is a hole
		t.Fatal(err)
	}
	var first map[string]Sum
	for _, flags := range [][]string{nil, {"-no-fragments"}, {"-always-use-fragments"}, {"-noI", "-noD", "-noF"}} {
		whole := squashfs(t, root, flags...)
		fs, err := Open(bytes.NewReader(whole), int64(len(whole)))
		if err != nil {
			t.Fatal(err)
		}
		defer fs.Close()
		sums := make(map[string]Sum)
		content := make(map[Sum]string)
		for name, in := range fs.All() {
			if in.Type != TypeFile {
				continue
			}
			if sums[name], err = fs.Sum(in); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if other, found := content[sums[name]]; found {
				t.Errorf("%q and %q have one sum", name, other)
			}
			content[sums[name]] = name
			tail, err := fs.Tail(in)
			if err != nil {
				t.Fatal(err)
			}
			if data, err := os.ReadFile(filepath.Join(root, name)); err != nil || !bytes.HasSuffix(data, tail) || uint64(len(data)) != in.Size {
				t.Errorf("%q has %d bytes, want %d, and the end of it: %v", name, in.Size, len(data), err)
			}
		}
		if first == nil {
			first = sums
		}
		if !maps.Equal(sums, first) {
			t.Errorf("%v: other sums", flags)
		}
		if n := len(fs.Contents()); n != 8-1+700 {
			t.Errorf("%v: %d files with content", flags, n)
		}
		if ids, err := fs.IDs(); err != nil || len(ids) == 0 || ids[0] != uint32(os.Getuid()) {
			t.Errorf("%v: the owners are %v: %v", flags, ids, err)
		}
	}
}

// FuzzRead takes any bytes. The tables of the seeds are not compressed, so that what is
// changed in them gets as far as it can.
func FuzzRead(f *testing.F) {
	if _, err := exec.LookPath("mksquashfs"); err != nil {
		f.Skip("mksquashfs is not installed")
	}
	files := []testlinux.File{{Name: "a/small", Data: "content"}, {Name: "b", Data: noise(1, 20<<10)}, {Name: "c/d/e", Data: "more"}}
	for _, flags := range [][]string{{"-noI", "-noD", "-noF", "-b", "4K"}, {"-b", "4K"}} {
		root := testlinux.Write(f, files)
		if err := os.Symlink("c/d/e", filepath.Join(root, "f")); err != nil {
			f.Fatal(err)
		}
		f.Add(squashfs(f, root, flags...))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := Read(bytes.NewReader(data), int64(len(data)))
		entries, failed := List(bytes.NewReader(data), int64(len(data)))
		if (err == nil) != (failed == nil) {
			t.Errorf("Read: %v, List: %v", err, failed)
		}
		if err != nil {
			return
		}
		for _, e := range entries {
			if e.Path == "" || strings.HasPrefix(e.Path, "/") || (e.Kind == Link) != (e.Target != "") {
				t.Errorf("%+v", e)
			}
		}
		for _, file := range files {
			if file.Path == "" || strings.HasPrefix(file.Path, "/") || strings.Contains(file.Path, "\x00") {
				t.Errorf("path %q", file.Path)
			}
			for _, e := range file.Blocks {
				if e.Offset < 0 || e.Length <= 0 || e.Offset+e.Length > int64(len(data)) {
					t.Errorf("%q lies at %v of %d", file.Path, e, len(data))
				}
			}
		}
		fs, err := Open(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			t.Fatal(err)
		}
		defer fs.Close()
		// Each ends, and reads nothing beyond.
		_, _ = fs.IDs()
		_, _ = fs.XattrTable()
		for _, in := range fs.All() {
			_, _ = fs.Attributes(in)
			if in.Size < 1<<20 {
				_, _ = fs.Sum(in)
			}
		}
	})
}
