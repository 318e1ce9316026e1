package upper

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"viver.lan/internal/mountinfo"
)

func TestDir(t *testing.T) {
	image := mountinfo.Mount{Point: "/", Type: "overlay", Options: []string{"rw", "lowerdir=/a", "upperdir=/run/rw/upper"}}
	for _, c := range []struct {
		mounts []mountinfo.Mount
		want   string
		err    error
	}{
		{[]mountinfo.Mount{{Point: "/", Type: "rootfs"}, image, {Point: "/home", Type: "nfs4"}}, "/run/rw/upper", nil},
		{[]mountinfo.Mount{image, {Point: "/", Type: "ext4"}}, "", ErrNoOverlay}, // covered
		{nil, "", ErrNoOverlay},
	} {
		if got, err := Dir(c.mounts); got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%v: %q, %v; want %q, %v", c.mounts, got, err, c.want, c.err)
		}
	}
}

func TestMeasure(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, size int) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, make([]byte, size), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	write("var/log/big", 900_000)
	write("var/lib/db", 500_000)
	write("home/anna/holes", 0)
	if err := os.Truncate(filepath.Join(dir, "home/anna/holes"), 1<<30); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(dir, "var/log/big"), filepath.Join(dir, "var/log/same")); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		write(fmt.Sprintf("var/spool/deep/%d", i), 1)
	}
	for i := range 3 {
		write(fmt.Sprintf("var/tmp/%d", i), 1)
	}
	u, err := Measure(t.Context(), dir, 2)
	if err != nil {
		t.Fatal(err)
	}
	if len(u.Largest) != 2 || u.Largest[0].Path != "/var/log/big" || u.Largest[1].Path != "/var/lib/db" || u.Largest[0].Changed.IsZero() {
		t.Errorf("largest: %+v", u.Largest)
	}
	if want := (Folder{"/var/spool/deep", 20}); len(u.Fullest) != 2 || u.Fullest[0] != want || u.Fullest[1].Files != 4 { // /var has 4 directories
		t.Errorf("fullest: %+v", u.Fullest)
	}
	// home anna holes; var with log big same, lib db, spool deep 20, tmp 3
	if u.Files != 3+1+3+2+2+20+4 || u.Bytes < 1_400_000 || u.Bytes > 3_000_000 {
		t.Errorf("%d files, %d bytes", u.Files, u.Bytes)
	}

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Measure(ended, dir, 2); !errors.Is(err, context.Canceled) {
		t.Errorf("a look that was ended: %v", err)
	}
	if _, err := Measure(t.Context(), filepath.Join(dir, "none"), 2); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such layer: %v", err)
	}
}
