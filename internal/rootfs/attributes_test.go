package rootfs

import (
	"archive/tar"
	"bytes"
	"context"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/imagetree"
	"viver.lan/internal/testlinux"
)

// archive writes members into a tar archive and returns its name. A member's
// content is its name.
func archive(t *testing.T, headers ...tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.Typeflag == 0 {
			h.Typeflag, h.Size = tar.TypeReg, int64(len(h.Name))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatalf("%s: %v", h.Name, err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte(h.Name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "t.tar")
	if err := os.WriteFile(name, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// reported is all that was reported of a tree, in one text.
func reported(tree *imagetree.Tree) string { return strings.Join(tree.Report.Lines(), "\n") }

// TestOddAttributes makes a squashfs of files each of which has something that a
// squashfs or a pax header cannot hold: it is named, and all files are there.
func TestOddAttributes(t *testing.T) {
	testlinux.Tool(t, "mksquashfs")
	xattr := func(key, value string) map[string]string { return map[string]string{"SCHILY.xattr." + key: value} }
	many := make(map[string]string)
	for i := range 3000 {
		many["SCHILY.xattr.user.a-rather-long-name-"+strings.Repeat("x", i%50)+string(rune('a'+i%26))+string(rune('a'+i/26%26))] = "v"
	}
	tree, err := imagetree.Scan(context.Background(), archive(t,
		tar.Header{Name: "long-ago", ModTime: time.Unix(-1<<33, 0)},
		tar.Header{Name: "before-1970", ModTime: time.Unix(-1, 0)},
		tar.Header{Name: "far-away", ModTime: time.Unix(1<<34, 0)},
		tar.Header{Name: "half-a-second", ModTime: time.Unix(1e9, 5e8), Format: tar.FormatPAX},
		tar.Header{Name: "odd-owner", Uid: math.MaxUint32 + 1, Gid: math.MaxUint32},
		tar.Header{Name: "many", PAXRecords: many},
		tar.Header{Name: "overlay", PAXRecords: xattr("trusted.overlay.opaque", "y")},
		tar.Header{Name: "class", PAXRecords: xattr("system.nfs4_acl", "y")},
		tar.Header{Name: "empty", PAXRecords: xattr("user.comment", "y")},
		tar.Header{Name: "acl", Mode: 0o660, PAXRecords: map[string]string{"SCHILY.acl.access": "user::rw-,user:33:rw-,group::---,mask::rw-,other::---"}},
		tar.Header{Name: "bad-acl", Mode: 0o664, PAXRecords: map[string]string{"SCHILY.acl.access": "nobody knows"}},
		tar.Header{Name: "new\nline \xe9\x01 ", ModTime: time.Unix(1e9, 0)},
		tar.Header{Name: strings.Repeat("l", 300)},
		tar.Header{Name: "whiteout", Typeflag: tar.TypeChar},
		tar.Header{Name: "device", Typeflag: tar.TypeBlock, Devmajor: 5000, Devminor: 1},
		tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: strings.Repeat("a/", 3000)},
		tar.Header{Name: "to-nothing", Typeflag: tar.TypeLink, Linkname: "nothing"},
		tar.Header{Name: "a-link", Typeflag: tar.TypeSymlink, Linkname: "elsewhere"},
		tar.Header{Name: "a-link/below"},
		tar.Header{Name: "queue", Typeflag: tar.TypeFifo}, tar.Header{Name: "same-queue", Typeflag: tar.TypeLink, Linkname: "queue"},
	), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	out := filepath.Join(t.TempDir(), "root")
	if err := Write(context.Background(), tree, out, Options{Level: 1}, ignore); err != nil {
		t.Fatal(err)
	}
	list := testlinux.Run(t, "unsquashfs", "-llnumeric", out)
	for _, want := range []string{"/long-ago", "/before-1970", "/far-away", "/half-a-second", "65534/65534", "/many", "/overlay", "/class", "/empty",
		"-rw------- 0/0                       3", "/bad-acl", "/a-link -> elsewhere", "/queue", "/same-queue"} {
		if !strings.Contains(list, want) {
			t.Errorf("no %q in\n%s", want, list)
		}
	}
	for _, none := range []string{"/lll", "/whiteout", "/device", "/link ->", "/to-nothing", "/below"} {
		if strings.Contains(list, none) {
			t.Errorf("%q is in\n%s", none, list)
		}
	}
	// What is reported as dropped does not reach mksquashfs, which gets these headers.
	err = tree.Walk(func(name string, e *imagetree.Entry) error {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&e.Header); err != nil {
			return err
		}
		for _, dropped := range []string{"trusted.overlay", "system.nfs4", "acl.access"} {
			if strings.Contains(b.String(), dropped) {
				t.Errorf("%s still has %s", name, dropped)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var report bytes.Buffer
	if err := tree.Report.Write(&report); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"/long-ago\n", "/before-1970\n", "/far-away\n", "/odd-owner\n", `/many: \"user.a-`, `/overlay: \"trusted.overlay`, `/class: \"system.nfs4`,
		"/acl (mode 0600)", "/bad-acl (mode 0600)", "/llllll", "/whiteout", "/device: it is a device", "/link: it is a link", "/to-nothing: it is a hard link", "/a-link: what is in it"} {
		if !strings.Contains(report.String(), want) {
			t.Errorf("not reported: %s", want)
		}
	}
	if strings.Contains(report.String(), "half-a-second") || strings.Contains(report.String(), "/empty") {
		t.Errorf("reported what is well:\n%s", report.String())
	}
	for _, line := range tree.Report.Lines() {
		if len(line) > 4000 || strings.Contains(line, "\n") {
			t.Errorf("a line of %d bytes: %.200s", len(line), line)
		}
	}
}
