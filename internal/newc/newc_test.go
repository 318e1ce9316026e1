package newc

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/u-root/u-root/pkg/cpio"
)

// TestArchives lets cpio(1) unpack an archive, and another one behind it.
func TestArchives(t *testing.T) {
	program, err := exec.LookPath("cpio")
	if err != nil {
		t.Skip(err)
	}
	var first, both bytes.Buffer
	w := NewWriter(&first)
	for name, data := range map[string]string{"etc/a": "A", "etc/b/c": "C", "d": strings.Repeat("D", 600)} {
		if err := w.File(name, []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	// What other programs write may end anywhere.
	if err := Copy(&both, bytes.NewReader(bytes.TrimRight(first.Bytes(), "\x00"))); err != nil || !bytes.HasPrefix(first.Bytes(), both.Bytes()) || both.Len()%512 != 0 {
		t.Fatalf("a copy of %d bytes, %v", both.Len(), err)
	}
	dir := t.TempDir()
	cmd := exec.Command(program, "--quiet", "-idm", "-H", "newc")
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

func FuzzFirst(f *testing.F) {
	member := func(name, text string) string {
		pad := func(s string) string { return s + strings.Repeat("\x00", -len(s)&3) }
		return pad(fmt.Sprintf("070701%048X%08X%032X%08X%08X%s\x00", 0, len(text), 0, len(name)+1, 0, name)) + pad(text)
	}
	f.Add([]byte(member("etc", "") + member("key", "secret") + member(cpio.Trailer, "")))
	f.Add([]byte(member(cpio.Trailer, "")))
	f.Add([]byte(strings.Replace(member("key", "secret"), "00000004", "FFFFFFFF", 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got, err := First(data, "key"); err == nil && !bytes.Contains(data, got) {
			t.Errorf("%q comes out of nowhere", got)
		}
	})
	if got, err := First([]byte(member("etc", "")+member("key", "secret")), "key"); err != nil || string(got) != "secret" {
		f.Errorf("%q, %v", got, err)
	}
}
