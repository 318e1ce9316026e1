package bootmedium

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/testlinux"
)

// write makes a directory of files; a name with "+x" behind it is executable, a content
// that begins with "->" a link.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, data := range files {
		mode := os.FileMode(0o644)
		if plain, ok := strings.CutSuffix(name, "+x"); ok {
			name, mode = plain, 0o755
		}
		p := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(p), 0o755)
		if target, ok := strings.CutPrefix(data, "->"); ok && err == nil {
			err = os.Symlink(target, p)
		} else if err == nil {
			err = os.WriteFile(p, []byte(data), mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// What a node would not use does not get onto a medium, and the error says where to look.
func TestMediumRefusesBrokenRunes(t *testing.T) {
	testlinux.Tool(t, "grub-mkrescue")
	for _, test := range []struct {
		files map[string]string
		want  string
	}{
		{map[string]string{"school/rune.toml": "name = school\n"}, "rune school: rune.toml:1: "},
		{map[string]string{"school/rune.toml": "name = \"school\"\n\norder = 200\n"}, "rune school: rune.toml:3: order: 200"},
		{map[string]string{"school/files/x": ""}, "rune school: no rune.toml in it"},
		{map[string]string{"school/rune.toml": "name = \"school\"\n", "school/files/etc/x": "->y"}, "rune school: files/etc/x is a symbolic link"},
		{map[string]string{"school/rune.toml": "name = \"school\"\n", "school/files/bin/tool+x": ""}, `add executable = ["/bin/tool"] to rune.toml`},
	} {
		bundle, out := filepath.Join(write(t, test.files), "school"), t.TempDir()
		// The image is not there: the bundle is looked at first.
		_, err := Build(context.Background(), Config{Images: []string{"/nonexistent"}, Output: filepath.Join(out, "x.iso"), Runes: []string{bundle}})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %q", err, test.want)
		}
	}
}

func TestMediumRefusesTwoRunesOfOneName(t *testing.T) {
	testlinux.Tool(t, "grub-mkrescue")
	files := map[string]string{"school/rune.toml": "name = \"school\"\n"}
	_, err := Build(context.Background(), Config{Images: []string{"/nonexistent"}, Output: filepath.Join(t.TempDir(), "x.iso"),
		Runes: []string{filepath.Join(write(t, files), "school"), filepath.Join(write(t, files), "school")}})
	if err == nil || !strings.Contains(err.Error(), "two of the bundles are called school") {
		t.Error(err)
	}
}

func TestRunesOnASettingsVolume(t *testing.T) {
	volume := write(t, map[string]string{"viver/viver.toml": ""})
	first := write(t, map[string]string{"web/rune.toml": "name = \"web\"\n", "web/files/bin/old": ""})
	second := write(t, map[string]string{"web/rune.toml": "name = \"web\"\nexecutable = [\"/bin/new\"]\n", "web/files/bin/new+x": ""})
	for _, dir := range []string{first, second} {
		if b, err := AddRune(volume, filepath.Join(dir, "web")); err != nil || b.Name != "web" {
			t.Fatalf("%+v, %v", b, err)
		}
	}
	runes := filepath.Join(volume, "viver/runes")
	if got := testlinux.Names(t, filepath.Join(runes, "web/files/bin")); len(got) != 1 || got[0] != "new" {
		t.Errorf("the second has not taken the place of the first: %v", got)
	}
	broken := write(t, map[string]string{"web/rune.toml": "name = \"wed\"\n"})
	if _, err := AddRune(volume, filepath.Join(broken, "web")); err == nil || !strings.Contains(err.Error(), "rune.toml:1: ") {
		t.Error(err)
	}
	if _, err := AddRune(t.TempDir(), filepath.Join(second, "web")); err == nil || !strings.Contains(err.Error(), "VIVERCONF") {
		t.Error(err)
	}
	if err := RemoveRune(volume, "../runes"); err == nil {
		t.Error("a path is no name")
	}
	if err := RemoveRune(volume, "web"); err != nil {
		t.Error(err)
	}
	if err := RemoveRune(volume, "web"); err == nil || !strings.Contains(err.Error(), `off = ["web"]`) {
		t.Error(err)
	}
	if got := testlinux.Names(t, runes); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}
