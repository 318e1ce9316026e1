package imagedir_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/imagebuild/imagebuildtest"
	"viver.lan/internal/imagedir"
	"viver.lan/internal/manifest"
	"viver.lan/internal/sign"
	"viver.lan/internal/testlinux"
)

// TestFind has images that are whole, not signed, of no use, too deep and hidden.
func TestFind(t *testing.T) {
	image := imagebuildtest.Build(t, testlinux.Files(t))
	dir := t.TempDir()
	for _, name := range []string{"office", "a/b/lab", "unsigned", "spoiled", "a/b/c/d/deep", ".hidden"} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(name, os.DirFS(image)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "unsigned", manifest.Signature)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "spoiled", manifest.File), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for root, more := range map[string]string{dir: dir + "/office", link: link} {
		found, err := imagedir.Find(t.Context(), []string{root, more})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range found {
			name := strings.TrimPrefix(s.Dir, root+"/")
			switch {
			case s.Manifest == nil:
				name += " spoiled"
			case s.Problem != "":
				name += ": " + s.Problem
			case s.SignedBy != testlinux.Key().Public().ID() || s.Manifest.Name != "fake" || s.Pieces == 0:
				t.Errorf("%+v", s)
			}
			got = append(got, name)
		}
		if want := "[a/b/lab office spoiled spoiled unsigned: not signed]"; fmt.Sprint(got) != want {
			t.Errorf("below %s: %v, want %v", root, got, want)
		}
	}
	if _, err := imagedir.Find(t.Context(), []string{"/nowhere"}); err == nil {
		t.Error("a directory that does not exist has no images, and that was no error")
	}
}

func TestRemove(t *testing.T) {
	image := imagebuildtest.Build(t, testlinux.Files(t))
	parent := filepath.Dir(image)
	link := filepath.Join(parent, "link")
	if err := os.Symlink(image, link); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{link, parent, filepath.Join(image, "boot"), filepath.Join(image, manifest.Root)} {
		if err := imagedir.Remove(dir); err == nil || !strings.Contains(err.Error(), "is no image") {
			t.Errorf("%s: %v", dir, err)
		}
	}
	if err := imagedir.Remove(image); err == nil || !strings.Contains(err.Error(), "no part of an image: report.json;") {
		t.Error(err)
	}
	notes := filepath.Join(image, "boot", "notes")
	if err := os.WriteFile(notes, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := imagedir.Remove(image, "report.json"); err == nil || !strings.Contains(err.Error(), "no part of an image: boot/notes;") {
		t.Error(err)
	}
	if err := os.Remove(notes); err != nil {
		t.Fatal(err)
	}
	if err := imagedir.Remove(image, "report.json"); err != nil {
		t.Error(err)
	}
	if left := testlinux.Names(t, parent); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

func TestSign(t *testing.T) {
	image := imagebuildtest.Build(t, testlinux.Files(t))
	signature := filepath.Join(image, manifest.Signature)
	if err := os.Remove(signature); err != nil {
		t.Fatal(err)
	}
	if _, err := imagedir.Sign(t.Context(), image, newKey(t), ignored); err == nil || !strings.Contains(err.Error(), "is for machines that take images of key "+testlinux.Key().Public().ID()) {
		t.Errorf("with another key: %v", err)
	}
	if _, err := imagedir.Sign(t.Context(), image, testlinux.Key(), ignored); err != nil {
		t.Fatal(err)
	}
	if v, err := imagedir.Verify(t.Context(), image, testlinux.Key().Public(), nil); err != nil || v.Err() != nil {
		t.Error(err)
	}
	if err := flip(filepath.Join(image, manifest.Root), 3000); err != nil {
		t.Fatal(err)
	}
	if _, err := imagedir.Sign(t.Context(), image, testlinux.Key(), ignored); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("a damaged one: %v", err)
	}
	if _, err := imagedir.Sign(t.Context(), t.TempDir(), testlinux.Key(), ignored); err == nil || !strings.Contains(err.Error(), "is no image") {
		t.Errorf("none: %v", err)
	}
	if _, err := imagedir.Verify(t.Context(), image, sign.PublicKey{}, nil); err != nil {
		t.Errorf("the signature is not what it was: %v", err)
	}
}

func ignored(int64, int64) {}
