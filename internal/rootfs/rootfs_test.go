package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"viver.lan/internal/imagetree"
	"viver.lan/internal/testlinux"
)

// lastWrite keeps what was written last.
type lastWrite []byte

func (l *lastWrite) Write(p []byte) (int, error) {
	*l = append((*l)[:0], p...)
	return len(p), nil
}

// TestEndOfTheArchive: who reads the stream may leave after the first block of the
// end, so the whole end is in one write.
func TestEndOfTheArchive(t *testing.T) {
	tree, err := imagetree.Scan(context.Background(), testlinux.Write(t, testlinux.Files(t)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	var last lastWrite
	if err := writeTar(context.Background(), tree, &last, t.TempDir(), ignore); err != nil || !bytes.Equal(last, make([]byte, 1024)) {
		t.Errorf("the last write is of %d bytes: %v", len(last), err)
	}
}

// TestTarIsTheSameTree compares the index of a directory with that of the tar
// archive GNU tar makes of it.
func TestTarIsTheSameTree(t *testing.T) {
	root := testlinux.Write(t, testlinux.Files(t))
	if err := os.Link(filepath.Join(root, "sbin/init"), filepath.Join(root, "sbin/telinit")); err != nil {
		t.Fatal(err)
	}
	archive := filepath.Join(t.TempDir(), "t.tar")
	testlinux.Run(t, "tar", "-C", root, "-cf", archive, ".")
	var streams [2]bytes.Buffer
	for i, source := range []string{root, archive} {
		tree, err := imagetree.Scan(context.Background(), source, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := writeTar(context.Background(), tree, &streams[i], t.TempDir(), ignore); err != nil {
			t.Fatal(err)
		}
		tree.Close()
	}
	a, b := testlinux.Members(t, &streams[0]), testlinux.Members(t, &streams[1])
	if !slices.Equal(a, b) {
		t.Errorf("directory: %v\ntar: %v", a, b)
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
		tree, err := imagetree.Scan(context.Background(), archive, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		var b bytes.Buffer
		if err := writeTar(context.Background(), tree, &b, t.TempDir(), ignore); err != nil {
			return nil, err
		}
		return testlinux.Members(t, &b), nil
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

func TestPermissive(t *testing.T) {
	for in, want := range map[string]string{
		"# SELINUX=enforcing\nSELINUX=enforcing\nSELINUXTYPE=targeted\n": "# SELINUX=enforcing\n# SELINUX=enforcing in the source of this image: docs/images.md says why\nSELINUX=permissive\nSELINUXTYPE=targeted\n",
		"SELINUX = Enforcing":           "# SELINUX = Enforcing in the source of this image: docs/images.md says why\nSELINUX=permissive\n",
		"SELINUX=permissive\n":          "",
		"SELINUX=disabled\nenforcing\n": "",
	} {
		got, changed := permissive([]byte(in))
		if changed != (want != "") || changed && string(got) != want {
			t.Errorf("%q became %q, %v", in, got, changed)
		}
	}
}

func TestScrubFstab(t *testing.T) {
	in := "# remark\nUUID=1 / ext4 defaults 0 1\nUUID=2 none swap sw 0 0\nsrv:/h /home nfs rw 0 0\ntmpfs /tmp tmpfs size=1g 0 0\n\n"
	want := "# remark\n# not on a diskless node: UUID=1 / ext4 defaults 0 1\n# not on a diskless node: UUID=2 none swap sw 0 0\nsrv:/h /home nfs rw 0 0\ntmpfs /tmp tmpfs size=1g 0 0\n\n"
	if got, changed := scrubFstab([]byte(in)); string(got) != want || !slices.Equal(changed, []string{"UUID=1 / ext4 defaults 0 1", "UUID=2 none swap sw 0 0"}) {
		t.Errorf("changed %q, got:\n%s", changed, got)
	}
}
