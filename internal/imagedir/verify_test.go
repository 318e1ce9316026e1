package imagedir_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/imagebuild/imagebuildtest"
	"viver.lan/internal/imagedir"
	"viver.lan/internal/manifest"
	"viver.lan/internal/sign"
	"viver.lan/internal/testlinux"
)

func TestVerifyFindsDamage(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(image string) error
		want   string
	}{
		{"flipped bit", func(image string) error { return flip(filepath.Join(image, manifest.Kernel), 4000) }, "vmlinuz at byte 0: piece"},
		{"flipped bit in the second piece", func(image string) error { return flip(filepath.Join(image, manifest.Root), 16<<10+5) }, "root.squashfs at byte 16384: piece 1 "},
		{"truncated", func(image string) error { return os.Truncate(filepath.Join(image, manifest.Root), 5000) }, "root.squashfs at byte 5000: the file ends here"},
		{"longer", func(image string) error { return os.Truncate(filepath.Join(image, manifest.Kernel), 10000) }, "vmlinuz at byte 8192: the file should end here"},
		{"missing", func(image string) error { return os.Remove(filepath.Join(image, "boot/shimx64.efi")) }, "boot/shimx64.efi at byte 0: the file is missing"},
		{"another digest", func(image string) error {
			return errors.Join(edit(filepath.Join(image, manifest.File), `"sha256": "`, 11), resign(image, testlinux.Key()))
		}, "root.squashfs at byte 0: its SHA-256"},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := imagebuildtest.Build(t, testlinux.Change(testlinux.Files(t), testlinux.File{Name: "usr/share/testlinux.Noise", Data: testlinux.Noise(100 << 10)}))
			if err := c.damage(image); err != nil {
				t.Fatal(err)
			}
			v, err := imagedir.Verify(context.Background(), image, testlinux.Key().Public(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := v.Err(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	t.Run("another metainfo", func(t *testing.T) {
		image := imagebuildtest.Build(t, testlinux.Files(t))
		other := imagebuildtest.Build(t, testlinux.Change(testlinux.Files(t), testlinux.File{Name: "etc/hostname", Data: "other"}))
		data, err := os.ReadFile(filepath.Join(other, manifest.Metainfo))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(image, manifest.Metainfo), data, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := imagedir.Verify(context.Background(), image, testlinux.Key().Public(), nil); err == nil || !strings.Contains(err.Error(), "does not belong to its manifest") {
			t.Errorf("got %v", err)
		}
	})
}

func flip(name string, at int64) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], at); err != nil {
		return err
	}
	b[0] ^= 0x10
	_, err = f.WriteAt(b[:], at)
	return err
}

// edit changes the character that stands skip bytes after the first match.
func edit(name, match string, skip int) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	at := bytes.Index(data, []byte(match)) + skip
	if data[at] == '0' {
		data[at] = '1'
	} else {
		data[at] = '0'
	}
	return os.WriteFile(name, data, 0o644)
}

// resign signs the manifest of an image as it is now.
func resign(image string, key sign.PrivateKey) error {
	text, err := os.ReadFile(filepath.Join(image, manifest.File))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(image, manifest.Signature), key.Sign(sign.Manifest, text), 0o644)
}

func newKey(t *testing.T) sign.PrivateKey {
	t.Helper()
	key, err := sign.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestMinisignVerifiesImage lets minisign(1) judge what Build signed, with the
// key that cpio(1) finds in the initramfs.
func TestMinisignVerifiesImage(t *testing.T) {
	image, dir := imagebuildtest.Build(t, testlinux.Files(t)), t.TempDir()
	f, err := os.Open(filepath.Join(image, manifest.Initramfs))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(testlinux.Tool(t, "cpio"), "--quiet", "-idm", "-H", "newc")
	cmd.Dir, cmd.Stdin = dir, f
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v: %s", err, out)
	}
	said := testlinux.Run(t, "minisign", "-V", "-H", "-p", filepath.Join(dir, manifest.OwnerKey), "-m", filepath.Join(image, manifest.File))
	if !strings.Contains(said, "Trusted comment: "+string(sign.Manifest)) {
		t.Error(said)
	}
	v, err := imagedir.Verify(context.Background(), image, sign.PublicKey{}, nil)
	if err != nil || v.Err() != nil || v.Trusted || v.SignedBy != testlinux.Key().Public().ID() {
		t.Errorf("with no owner named: %+v, %v", v, err)
	}
}

func TestVerifyRefusesForeignImages(t *testing.T) {
	stranger := newKey(t)
	own, theirs := testlinux.Key().Public(), stranger.Public()
	for _, c := range []struct {
		name   string
		change func(image string) error
		owner  sign.PublicKey
		want   string
	}{
		{"another owner", func(string) error { return nil }, theirs, "is not an image of this owner: signed by key " + own.ID() + ", expected key " + theirs.ID()},
		{"signed again by a stranger", func(image string) error { return resign(image, stranger) }, own, "is not an image of this owner"},
		{"signed again by a stranger whom we trust", func(image string) error { return resign(image, stranger) }, theirs, "would be refused by its own initramfs: signed by key " + theirs.ID()},
		{"signed again, nobody asked", func(image string) error { return resign(image, stranger) }, sign.PublicKey{}, "would be refused by its own initramfs"},
		{"changed manifest", func(image string) error { return edit(filepath.Join(image, manifest.File), `"created": "`, 12) }, own, "does not belong to these bytes"},
		{"no signature", func(image string) error { return os.Remove(filepath.Join(image, manifest.Signature)) }, own, "is not signed"},
		{"no signature, nobody asked", func(image string) error { return os.Remove(filepath.Join(image, manifest.Signature)) }, sign.PublicKey{}, "is not signed"},
		{"half a signature", func(image string) error { return os.Truncate(filepath.Join(image, manifest.Signature), 100) }, own, "not a minisign signature"},
	} {
		t.Run(c.name, func(t *testing.T) {
			image := imagebuildtest.Build(t, testlinux.Files(t))
			if err := c.change(image); err != nil {
				t.Fatal(err)
			}
			if _, err := imagedir.Verify(context.Background(), image, c.owner, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
