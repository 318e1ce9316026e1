package imagebuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"

	"viver.lan/internal/manifest"
	"viver.lan/internal/media"
	"viver.lan/internal/sign"
)

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

// TestMinisignKnowsTheImage lets minisign(1) judge what Build signed, with the
// key that cpio(1) finds in the initramfs.
func TestMinisignKnowsTheImage(t *testing.T) {
	image, dir := buildFake(t, fakeFiles(t)), t.TempDir()
	f, err := os.Open(filepath.Join(image, manifest.Initramfs))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(needTool(t, "cpio"), "--quiet", "-idm", "-H", "newc")
	cmd.Dir, cmd.Stdin = dir, f
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v: %s", err, out)
	}
	said := runTool(t, "minisign", "-V", "-H", "-p", filepath.Join(dir, manifest.OwnerKey), "-m", filepath.Join(image, manifest.File))
	if !strings.Contains(said, "Trusted comment: "+string(sign.Manifest)) {
		t.Error(said)
	}
	v, err := Verify(context.Background(), image, sign.PublicKey{}, nil)
	if err != nil || v.Err() != nil || v.Trusted || v.SignedBy != fakeKey().Public().ID() {
		t.Errorf("with no owner named: %+v, %v", v, err)
	}
}

func TestImagesFromElsewhere(t *testing.T) {
	stranger := newKey(t)
	own, theirs := fakeKey().Public(), stranger.Public()
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
			image := buildFake(t, fakeFiles(t))
			if err := c.change(image); err != nil {
				t.Fatal(err)
			}
			if _, err := Verify(context.Background(), image, c.owner, nil); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if _, err := exec.LookPath("grub-mkrescue"); err != nil {
				return
			}
			if _, err := BuildMedium(context.Background(), MediumConfig{Image: image, Owner: c.owner, Output: filepath.Join(t.TempDir(), "x.iso")}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("a medium: got %v, want %q", err, c.want)
			}
		})
	}
	if _, err := Build(context.Background(), Config{Source: "/", Output: filepath.Join(t.TempDir(), "x"), Lib: fakeLib(t)}); err == nil || !strings.Contains(err.Error(), "owner's key") {
		t.Errorf("without a key: %v", err)
	}
}

// TestDamagedInitramfs reads the owner from what is no whole archive.
func TestDamagedInitramfs(t *testing.T) {
	var b bytes.Buffer
	if err := writeOwner(&b, fakeKey().Public()); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), manifest.Initramfs)
	read := func(data []byte) (sign.PublicKey, error) {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
		return readOwner(name)
	}
	if key, err := read(append(b.Bytes(), noise(9000)...)); err != nil || !key.Equal(fakeKey().Public()) {
		t.Fatal(key, err)
	}
	for i := range b.Len() {
		if i < 480 { // the key's own bytes end before that
			if _, err := read(b.Bytes()[:i]); err == nil {
				t.Fatalf("read from %d bytes", i)
			}
		}
		damaged := bytes.Clone(b.Bytes())
		damaged[i] = 'F'
		_, _ = read(damaged) // must not panic
	}
	for _, other := range []string{"", "070701", strings.Repeat("070701", 30), noise(1000)} {
		if _, err := read([]byte(other)); err == nil || !strings.Contains(err.Error(), "build the image again") {
			t.Errorf("%.20q: %v", other, err)
		}
	}
}

// secretFiles makes an owner's key and returns its path and its telling line.
func secretFiles(t *testing.T) (path, line string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), sign.KeyFile)
	if _, _, err := sign.OpenKey(path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, strings.Split(string(data), "\n")[1]
}

// TestNoKeyTravels builds from a machine that has its owner's key lying around:
// none of its copies is in what is served.
func TestNoKeyTravels(t *testing.T) {
	path, secret := secretFiles(t)
	key, err := sign.ReadPrivateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	source := writeTree(t, change(fakeFiles(t),
		file{name: "root/.config/viver/owner.key", data: string(text), mode: 0o600},
		file{name: "root/.config/viver/owner.pub", data: string(key.Public().Text())},
		file{name: "home/ann/.config/viver/second.key", data: string(text), mode: 0o600},
		file{name: "srv/backup/key", data: string(text), mode: 0o600}))
	if err := os.Link(filepath.Join(source, "srv/backup/key"), filepath.Join(source, "srv/linked")); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "x")
	var notes []string
	c := Config{Source: source, Output: image, Lib: fakeLib(t), Key: key, Level: 1, Note: func(s string) { notes = append(notes, s) }}
	needTool(t, "mksquashfs")
	if _, err := Build(context.Background(), c); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(notes, func(s string) bool { return strings.HasPrefix(s, "emptied /srv/backup/key") }) {
		t.Errorf("not said: %q", notes)
	}
	out := filepath.Join(t.TempDir(), "root")
	runTool(t, "unsquashfs", "-quiet", "-no-progress", "-d", out, filepath.Join(image, manifest.Root))
	clean := func(dir string) {
		t.Helper()
		files := 0
		err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			files++
			data, err := os.ReadFile(p)
			if bytes.Contains(data, []byte(secret)) {
				t.Errorf("%s holds the owner's key", p)
			}
			return err
		})
		if err != nil || files < 5 {
			t.Errorf("%s: %d files, %v", dir, files, err)
		}
	}
	clean(out)
	for name, want := range map[string]bool{"root/.config/viver/owner.key": false, "home/ann/.config/viver/second.key": false,
		"root/.config/viver/owner.pub": true, "srv/backup/key": true, "srv/linked": true} {
		if _, err := os.Stat(filepath.Join(out, name)); (err == nil) != want {
			t.Errorf("%s: %v", name, err)
		}
	}

	needTool(t, "grub-mkrescue")
	// The key was kept in the image's directory: a habit, and a trap.
	if err := os.WriteFile(filepath.Join(image, "owner.key"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(t.TempDir(), "school")
	if err := os.MkdirAll(filepath.Join(bundle, "files/root"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"rune.toml": []byte("# a rune\n"), "files/root/mine": text} {
		if err := os.WriteFile(filepath.Join(bundle, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	m := MediumConfig{Image: image, Owner: key.Public(), Output: filepath.Join(t.TempDir(), "x.iso"), Runes: []string{bundle}}
	if _, err := BuildMedium(context.Background(), m); err == nil || !strings.Contains(err.Error(), "mine is a key that signs images") {
		t.Errorf("a key in a bundle: %v", err)
	}
	if err := os.Remove(filepath.Join(bundle, "files/root/mine")); err != nil {
		t.Fatal(err)
	}
	if _, err := BuildMedium(context.Background(), m); err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(t.TempDir(), "iso")
	runTool(t, "xorriso", "-osirrox", "on", "-indev", m.Output, "-extract", "/", tree)
	runTool(t, "chmod", "-R", "u+rwX", tree) // or the test cannot clear it away
	clean(tree)
	want := []string{"boot", manifest.Metainfo, manifest.Initramfs, manifest.Drivers, manifest.File, manifest.Signature, manifest.Root, manifest.Kernel}
	slices.Sort(want)
	if got := names(t, filepath.Join(tree, media.ImagePath)); !slices.Equal(got, want) {
		t.Errorf("the image on the medium: %v, want %v", got, want)
	}
	// The whole ISO too, with the settings volume behind the file system.
	iso, err := os.ReadFile(m.Output)
	if err != nil || bytes.Contains(iso, []byte(secret)) {
		t.Error("the ISO holds the owner's key", errors.Join(err))
	}
}

func FuzzFirstMember(f *testing.F) {
	member := func(name, text string) string {
		pad := func(s string) string { return s + strings.Repeat("\x00", -len(s)&3) }
		return pad(fmt.Sprintf("070701%048X%08X%032X%08X%08X%s\x00", 0, len(text), 0, len(name)+1, 0, name)) + pad(text)
	}
	f.Add([]byte(member("etc", "") + member("key", "secret") + member(cpio.Trailer, "")))
	f.Add([]byte(member(cpio.Trailer, "")))
	f.Add([]byte(strings.Replace(member("key", "secret"), "00000004", "FFFFFFFF", 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := firstMember(data, "key"); err == nil && !bytes.Contains(data, got) {
			t.Errorf("%q comes out of nowhere", got)
		}
	})
	if got, err := firstMember([]byte(member("etc", "")+member("key", "secret")), "key"); err != nil || string(got) != "secret" {
		f.Errorf("%q, %v", got, err)
	}
}
