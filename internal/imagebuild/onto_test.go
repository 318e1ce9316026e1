package imagebuild

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"viver.lan/internal/imagedir"
	"viver.lan/internal/manifest"
	"viver.lan/internal/sign"
	"viver.lan/internal/testlinux"
)

// ontoConfig builds files onto an image, with small pieces; it returns what was said.
func ontoConfig(t *testing.T, files []testlinux.File, onto string) (Config, *strings.Builder) {
	t.Helper()
	var said strings.Builder
	return Config{Source: testlinux.Write(t, files), Output: filepath.Join(t.TempDir(), "fake"), Onto: onto, Lib: testlinux.Lib(t), Key: testlinux.Key(), Level: 1,
		PieceLength: 16 << 10, Created: time.Unix(1e9, 0), Note: func(s string) { fmt.Fprintln(&said, s) }}, &said
}

func pseudo(t *testing.T, image string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "pseudo")
	testlinux.Run(t, "unsquashfs", "-quiet", "-pf", out, filepath.Join(image, manifest.Root))
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestOnto builds a changed tree onto an image: the result has the tree that a full build
// has, and pieces of the old one in the root file system and in what follows it.
func TestOnto(t *testing.T) {
	testlinux.Tool(t, "mksquashfs")
	files := append(testlinux.Files(t), testlinux.File{Name: "noise", Data: testlinux.Noise(1 << 20)})
	old := buildFake(t, files)
	changed := testlinux.Change(files, testlinux.File{Name: "etc/motd", Data: "welcome\n"}, testlinux.File{Name: "usr/share/text", Data: "-"})
	c, said := ontoConfig(t, changed, old)
	m, err := Build(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	v, err := imagedir.Verify(t.Context(), c.Output, testlinux.Key().Public(), nil)
	if err != nil || v.Err() != nil {
		t.Fatal(err, v.Err())
	}
	if pseudo(t, c.Output) != pseudo(t, buildFake(t, changed)) {
		t.Error("the tree is not that of a full build")
	}
	before, err := readInfo(old)
	if err != nil {
		t.Fatal(err)
	}
	after, err := readInfo(c.Output)
	if err != nil {
		t.Fatal(err)
	}
	// The head, what is new and the tables: whole pieces, each perhaps begun in another.
	if n := after.Missing(before); n == 0 || n > 5*c.PieceLength {
		t.Errorf("%d bytes of %d are to be fetched", n, after.Size)
	}
	kernel, _ := after.Lookup(manifest.Kernel)
	if shared := after.Shared(before)[kernel.Offset/c.PieceLength+1:]; len(shared) == 0 || min(shared[0], shared[len(shared)-1]) < 0 {
		t.Errorf("pieces behind the root file system that the old one has: %v", shared)
	}
	for _, want := range []string{"a machine that has " + old + " fetches 0.", "KiB of it are what " + old + " has and the source has not"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("said %q, want %q", said.String(), want)
		}
	}
	if names := testlinux.Names(t, c.Output); strings.Contains(fmt.Sprint(names), "fresh") || len(m.Files) != 9 {
		t.Errorf("files %v", names)
	}
	// In the place of the old one; and when all of that is of no use, as if it were not there.
	c.Onto = c.Output
	if _, err := Build(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	other, said := ontoConfig(t, testlinux.Files(t), old)
	if _, err := Build(t.Context(), other); err != nil || !strings.Contains(said.String(), "built without it: ") {
		t.Errorf("%v: %s", err, said)
	}
	if pseudo(t, other.Output) != pseudo(t, buildFake(t, testlinux.Files(t))) {
		t.Error("the image that was built without it has another tree")
	}
}

func TestOntoRefuses(t *testing.T) {
	stranger, err := sign.Generate()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, want string
		spoil      func(image string, c *Config) error
	}{
		{"nothing", "is no image", func(image string, _ *Config) error { return os.RemoveAll(image) }},
		{"damaged", "image fake is damaged; build or copy it again", func(image string, _ *Config) error {
			f, err := os.OpenFile(filepath.Join(image, manifest.Root), os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			_, err = f.WriteAt([]byte("other"), 2000)
			return err
		}},
		{"not signed", "is not signed", func(image string, _ *Config) error { return os.Remove(filepath.Join(image, manifest.Signature)) }},
		{"another owner's", "is not an image of this owner", func(_ string, c *Config) error { c.Key = stranger; return nil }},
		{"other pieces", "has pieces of 16384 bytes, and the new one would have 32768", func(_ string, c *Config) error { c.PieceLength = 32 << 10; return nil }},
	} {
		image := buildFake(t, testlinux.Files(t))
		config, _ := ontoConfig(t, testlinux.Files(t), image)
		if err := c.spoil(image, &config); err != nil {
			t.Fatal(err)
		}
		_, err := Build(t.Context(), config)
		if err == nil || !strings.HasPrefix(err.Error(), "the image to build onto: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if _, err := os.Stat(config.Output); err == nil {
			t.Errorf("%s: there is an image", c.name)
		}
	}
}
