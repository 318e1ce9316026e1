package imagetree

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// archiveOf writes members as "name=content", "dir/", "link->target" or "name=>first", a
// further name of a file.
func archiveOf(t *testing.T, members ...string) Archive {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		h := tar.Header{Mode: 0o644, ModTime: time.Unix(1e9, 0)}
		var data string
		if name, first, ok := strings.Cut(m, "=>"); ok {
			h.Typeflag, h.Name, h.Linkname = tar.TypeLink, name, first
		} else if name, target, ok := strings.Cut(m, "->"); ok {
			h.Typeflag, h.Name, h.Linkname = tar.TypeSymlink, name, target
		} else if name, content, ok := strings.Cut(m, "="); ok {
			h.Typeflag, h.Name, h.Size, data = tar.TypeReg, name, int64(len(content)), content
		} else {
			h.Typeflag, h.Name, h.Mode = tar.TypeDir, m, 0o755
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return Archive{Name: "layer", Data: bytes.NewReader(b.Bytes()), Size: int64(b.Len())}
}

// shown lists a tree as archiveOf takes it, without directories that hold something.
func shown(t *testing.T, tree *Tree) string {
	t.Helper()
	var list []string
	err := tree.Walk(func(name string, e *Entry) error {
		switch e.Header.Typeflag {
		case tar.TypeDir:
			if len(tree.children[name]) == 0 {
				list = append(list, name+"/")
			}
		case tar.TypeSymlink:
			list = append(list, name+"->"+e.Header.Linkname)
		default:
			data, err := tree.ReadFile(name)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			list = append(list, name+"="+string(data))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, " ")
}

func TestLayers(t *testing.T) {
	below := []string{"a/", "a/x=1", "a/y=2", "b=3", "usr/lib/", "usr/lib/so=4", "lib->usr/lib"}
	for _, c := range []struct {
		name   string
		layers [][]string
		want   string
	}{
		{"a file is added, and one replaced", [][]string{below, {"a/x=5", "c=6"}}, "a/x=5 a/y=2 b=3 c=6 lib->usr/lib usr/lib/so=4"},
		{"whiteout", [][]string{below, {"a/.wh.x", ".wh.b"}}, "a/y=2 lib->usr/lib usr/lib/so=4"},
		{"whiteout of a directory", [][]string{below, {".wh.a"}}, "b=3 lib->usr/lib usr/lib/so=4"},
		{"whiteout, and the same name again", [][]string{below, {"a/x=7", "a/.wh.x"}}, "a/x=7 a/y=2 b=3 lib->usr/lib usr/lib/so=4"},
		{"whiteout of what is in its own layer only", [][]string{below, {"n=8", ".wh.n"}}, "a/x=1 a/y=2 b=3 lib->usr/lib n=8 usr/lib/so=4"},
		{"opaque", [][]string{below, {"a/new=9", "a/.wh..wh..opq"}}, "a/new=9 b=3 lib->usr/lib usr/lib/so=4"},
		{"opaque, two layers up", [][]string{below, {"c=1"}, {"a/.wh..wh..opq", "a/"}}, "a/ b=3 c=1 lib->usr/lib usr/lib/so=4"},
		{"through a link", [][]string{below, {"lib/more=1", "lib/.wh.so"}}, "a/x=1 a/y=2 b=3 lib->usr/lib usr/lib/more=1"},
		{"a file takes the place of a directory", [][]string{below, {"a=1"}}, "a=1 b=3 lib->usr/lib usr/lib/so=4"},
		{"a directory takes the place of a link", [][]string{below, {"lib/", "lib/own=1"}}, "a/x=1 a/y=2 b=3 lib/own=1 usr/lib/so=4"},
		{"a directory over a directory", [][]string{below, {"a/"}}, "a/x=1 a/y=2 b=3 lib->usr/lib usr/lib/so=4"},
		{"a further name of a file below", [][]string{{"f=1"}, {"g=>f"}}, "f=1 g=1"},
		{"a file with further names is replaced", [][]string{{"f=1", "g=>f", "h=>f"}, {"f=2"}}, "f=2 g=1 h=1"},
		{"a file with further names goes", [][]string{{"d/f=1", "g=>d/f", "h=>d/f"}, {".wh.d"}, {".wh.g"}}, "h=1"},
		{"all its names go", [][]string{{"d/f=1", "d/g=>d/f"}, {".wh.d", "d/f=2"}}, "d/f=2"},
		{"names that lead out", [][]string{below, {"../../b=4", "/a/../../a/x=5", "../.wh.b"}}, "a/x=5 a/y=2 b=4 lib->usr/lib usr/lib/so=4"},
		{"whiteouts of nothing", [][]string{below, {".wh.", ".wh...", ".wh..", "none/.wh.x", "none/.wh..wh..opq"}}, "a/x=1 a/y=2 b=3 lib->usr/lib usr/lib/so=4"},
		{"a link that leads out", [][]string{{"out->../../..", "loop->loop"}, {"out/f=1"}}, "f=1 loop->loop out->../../.."},
	} {
		var layers []Archive
		for _, l := range c.layers {
			layers = append(layers, archiveOf(t, l...))
		}
		tree, err := ScanLayers(context.Background(), layers, nil)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got := shown(t, tree); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestDamagedLayer(t *testing.T) {
	a := archiveOf(t, "a=1", "b=2")
	a.Size = 1100
	if _, err := ScanLayers(context.Background(), []Archive{archiveOf(t, "c=1"), a}, nil); err == nil || !strings.Contains(err.Error(), "layer: not a whole tar archive") {
		t.Errorf("got %v", err)
	}
}

// TestLongNames has names as no file system has them, from an archive alone and from layers.
func TestLongNames(t *testing.T) {
	long, deep := strings.Repeat("n", maxName+1), strings.Repeat("d/", maxDepth)
	large := strings.Repeat(long[1:]+"/", maxPath/len(long))
	for _, name := range []string{long, long + "/f", "etc/" + long + "/f", "proc/" + long, deep + "f", large + "f"} {
		a := archiveOf(t, name+"=1", "g=>"+name, "g/.wh."+long[1:], long+"/.wh.x", deep+"d/.wh.x", large+"n/.wh.x", "h=2")
		alone, err := ScanTar(t.Context(), archiveOf(t, name+"=1", "g=>"+name, "h=2"), nil)
		if err != nil {
			t.Fatal(err)
		}
		layers, err := ScanLayers(t.Context(), []Archive{archiveOf(t, "g/"+long[1:]+"=3"), a}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, tree := range []*Tree{alone, layers} {
			if got := strings.TrimPrefix(shown(t, tree), "g/ "); got != "h=2" {
				t.Errorf("%.20s: got %.99s", name, got)
			}
			if d := tree.Report.Differences; len(d) != 1 || d[0].Reason != Unsupported || d[0].Count != 2 {
				t.Fatalf("%.20s: reported %+v", name, d)
			}
			for _, f := range tree.Report.Differences[0].Files {
				if len(f.Name) > 2*maxName {
					t.Errorf("a report of %d bytes", len(f.Name))
				}
			}
		}
	}
	for _, name := range []string{large[:maxPath-1], deep[:2*maxDepth-1]} {
		if tree, err := ScanTar(t.Context(), archiveOf(t, name+"=1"), nil); err != nil || shown(t, tree) != name+"=1" {
			t.Errorf("%.20s, which is not too long: %v", name, err)
		}
	}
}
