package imagediff

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/imagebuild"
	"viver.lan/internal/imagebuild/imagebuildtest"
	"viver.lan/internal/testlinux"
)

func ignore(int64, int64) {}

// TestCompare changes files in each way there is, and builds onto the first image.
func TestCompare(t *testing.T) {
	files := append(testlinux.Files(t), testlinux.File{Name: "noise", Data: testlinux.Noise(400_000)}, testlinux.File{Name: "srv/old", Data: "bye"},
		testlinux.File{Name: "srv/same-size", Data: "aaaa"})
	a := imagebuildtest.Build(t, files)
	if d, err := Compare(t.Context(), a, a, ignore); err != nil || len(d.Root) != 0 || d.Fetched != 0 || d.Missing != 0 || d.Pieces == 0 {
		t.Errorf("with itself: %+v, %v", d, err)
	}
	root := testlinux.Write(t, testlinux.Change(files, testlinux.File{Name: "srv/old", Data: "-"}, testlinux.File{Name: "srv/new", Data: "hello"},
		testlinux.File{Name: "srv/same-size", Data: "bbbb"}, testlinux.File{Name: "sbin/init", Data: "#!/bin/sh\n", Mode: 0o700}, testlinux.File{Name: "etc/hostname", Data: "lab7\n"}))
	if err := os.Chtimes(filepath.Join(root, "usr/share/text"), time.Time{}, time.Unix(7, 0)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(root, "etc/ssh/sshd_config")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("ssh_config", filepath.Join(root, "etc/ssh/sshd_config")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(root, "etc/ssh"), time.Time{}, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	b := filepath.Join(t.TempDir(), "b")
	c := imagebuild.Config{Source: root, Output: b, Onto: a, Lib: testlinux.Lib(t), Key: testlinux.Key(), Level: 1, Created: time.Unix(1e9, 0)}
	if _, err := imagebuild.Build(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	var last, total int64
	d, err := Compare(t.Context(), a, b, func(done, of int64) { last, total = done, of })
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range d.Root {
		got = append(got, fmt.Sprintf("%s %s %d %d", c.Path, c.What, c.SizeA, c.SizeB))
	}
	// The top directory has the time of the newest file: a link that was made just now.
	want := "/ attributes 0 0\n/etc/hostname changed 9 5\n/etc/ssh/sshd_config changed 7 0\n/sbin/init attributes 10 10\n/srv/new added 0 5\n/srv/old removed 3 0\n/srv/same-size changed 4 4\n/usr/share/text attributes 21000 21000"
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got\n%s\nwant\n%s", s, want)
	}
	if last != total || total == 0 {
		t.Errorf("progress ends with %d of %d", last, total)
	}
	if d.Missing == 0 || d.Missing > 5 || d.Fetched == 0 || d.Fetched > 5*d.B.PieceLength {
		t.Errorf("%d of %d pieces, %d bytes are to be fetched", d.Missing, d.Pieces, d.Fetched)
	}
	for _, f := range d.Payload {
		if f.Equals != (f.Name != "root.squashfs") || f.SizeA == 0 || f.SizeB == 0 {
			t.Errorf("%+v", f)
		}
	}
}

func TestCompareRefuses(t *testing.T) {
	image := imagebuildtest.Build(t, testlinux.Files(t))
	if _, err := Compare(t.Context(), image, t.TempDir(), ignore); err == nil || !strings.Contains(err.Error(), "is no image") {
		t.Error(err)
	}
	if err := os.Truncate(filepath.Join(image, "root.squashfs"), 1000); err != nil {
		t.Fatal(err)
	}
	if _, err := Compare(t.Context(), image, image, ignore); err == nil || !strings.Contains(err.Error(), "it is cut off") {
		t.Error(err)
	}
}
