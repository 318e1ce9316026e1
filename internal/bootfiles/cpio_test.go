package bootfiles

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"viver.lan/internal/testlinux"
)

// TestArchives lets cpio(1) unpack an archive.
func TestArchives(t *testing.T) {
	var first bytes.Buffer
	w := newArchive(&first)
	for name, data := range map[string]string{"etc/a": "A", "etc/b/c": "C", "d": strings.Repeat("D", 600)} {
		if err := w.file(name, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	if first.Len()%512 != 0 {
		t.Errorf("%d bytes: another archive behind them would not begin at a multiple of 512", first.Len())
	}
	dir := t.TempDir()
	cmd := exec.Command(testlinux.Tool(t, "cpio"), "--quiet", "-idm", "-H", "newc")
	cmd.Dir, cmd.Stdin = dir, &first
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("cpio: %v: %s", err, out)
	}
	for name, want := range map[string]string{"etc/a": "A", "etc/b/c": "C", "d": strings.Repeat("D", 600)} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
