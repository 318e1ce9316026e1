// Package imagebuildtest makes small images, for tests.
package imagebuildtest

import (
	"path/filepath"
	"testing"
	"time"

	"viver.lan/internal/imagebuild"
	"viver.lan/internal/testlinux"
)

// Build makes an image of a Linux, owned by testlinux.Key, and returns its directory.
func Build(t *testing.T, files []testlinux.File) string {
	t.Helper()
	return BuildAs(t, "fake", files)
}

// BuildAs makes one with a name.
func BuildAs(t *testing.T, name string, files []testlinux.File) string {
	t.Helper()
	testlinux.Tool(t, "mksquashfs")
	out := filepath.Join(t.TempDir(), name)
	c := imagebuild.Config{Source: testlinux.Write(t, files), Output: out, Lib: testlinux.Lib(t), Key: testlinux.Key(), Level: 1, PieceLength: 16 << 10, Created: time.Unix(1e9, 0)}
	if _, err := imagebuild.Build(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	return out
}
