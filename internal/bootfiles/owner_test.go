package bootfiles

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/manifest"
	"viver.lan/internal/testlinux"
)

// TestDamagedInitramfs reads the owner from what is no whole archive.
func TestDamagedInitramfs(t *testing.T) {
	var b bytes.Buffer
	if err := writeOwner(&b, []byte("the key")); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), manifest.Initramfs)
	read := func(data []byte) (string, error) {
		if err := os.WriteFile(name, data, 0o644); err != nil {
			t.Fatal(err)
		}
		key, err := ReadOwner(name)
		return string(key), err
	}
	if key, err := read(append(b.Bytes(), testlinux.Noise(9000)...)); err != nil || key != "the key" {
		t.Fatal(key, err)
	}
	for i := range b.Len() {
		if i < bytes.Index(b.Bytes(), []byte("the key"))+len("the key") {
			if _, err := read(b.Bytes()[:i]); err == nil {
				t.Fatalf("read from %d bytes", i)
			}
		}
		damaged := bytes.Clone(b.Bytes())
		damaged[i] = 'F'
		_, _ = read(damaged) // must not panic
	}
	for _, other := range []string{"", "070701", strings.Repeat("070701", 30), testlinux.Noise(1000)} {
		if _, err := read([]byte(other)); err == nil || !strings.Contains(err.Error(), "build the image again") {
			t.Errorf("%.20q: %v", other, err)
		}
	}
}
