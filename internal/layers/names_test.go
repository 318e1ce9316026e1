package layers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// tree makes empty files in a directory of their own.
func tree(t *testing.T, files ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range files {
		path := filepath.Join(root, f)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestLookUpNames(t *testing.T) {
	root := tree(t, "etc/passwd", "usr/bin/sh", "usr/lib/x/y/z", "usr/lib/x/y/deep/er", "usr/share/doc/x", "home/user/file")
	if err := os.Symlink("usr/bin", filepath.Join(root, "bin")); err != nil {
		t.Fatal(err)
	}
	const want = 1 + 1 + 4 // passwd, sh; x, y, z and deep
	if n, err := LookUpNames(t.Context(), root); n != want || err != nil {
		t.Errorf("%d names, %v; want %d", n, err, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if n, err := LookUpNames(ctx, root); n != 0 || !errors.Is(err, context.Canceled) {
		t.Errorf("after its end: %d names, %v", n, err)
	}
}

func TestLookUpNamesIsBounded(t *testing.T) {
	var files []string
	for i := range maxNames + 100 {
		files = append(files, fmt.Sprintf("etc/%d", i))
	}
	if n, err := LookUpNames(t.Context(), tree(t, append(files, "usr/bin/sh")...)); n != maxNames || err != nil {
		t.Errorf("%d names, %v; want %d", n, err, maxNames)
	}
}
