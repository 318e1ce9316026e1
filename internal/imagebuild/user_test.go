package imagebuild

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"viver.lan/internal/manifest"
	"viver.lan/internal/testlinux"
)

// TestOrdinaryUser builds from a directory as a user who is not root, when need
// be in a process of its own: everything belongs to root in the image.
func TestOrdinaryUser(t *testing.T) {
	const source, lib = "VIVER_TEST_SOURCE", "VIVER_TEST_LIB"
	if os.Geteuid() == 0 {
		// Where everybody may read and write, unlike the directories of t.
		dir, err := os.MkdirTemp("", "viver-user")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		for from, to := range map[string]string{testlinux.Write(t, testlinux.Files(t)): "source", testlinux.Lib(t): "lib"} {
			if err := os.CopyFS(filepath.Join(dir, to), os.DirFS(from)); err != nil {
				t.Fatal(err)
			}
		}
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		program := filepath.Join(dir, "test")
		testlinux.Run(t, "cp", self, program)
		testlinux.Run(t, "chown", "-R", "12345:12345", dir)
		cmd := exec.Command(program, "-test.run", "^TestOrdinaryUser$", "-test.v")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), source+"="+filepath.Join(dir, "source"), lib+"="+filepath.Join(dir, "lib"), "TMPDIR="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12345, Gid: 12345}}
		if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "--- SKIP") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	c := Config{Source: os.Getenv(source), Lib: os.Getenv(lib), Key: testlinux.Key(), Output: filepath.Join(t.TempDir(), "x"), Level: 1}
	if c.Source == "" {
		c.Source, c.Lib = testlinux.Write(t, testlinux.Files(t)), testlinux.Lib(t)
	}
	testlinux.Tool(t, "mksquashfs")
	if _, err := Build(context.Background(), c); err != nil {
		if strings.Contains(err.Error(), "user namespaces") {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	for _, line := range strings.Split(testlinux.Run(t, "unsquashfs", "-lln", filepath.Join(c.Output, manifest.Root)), "\n") {
		if strings.Contains(line, "squashfs-root") && !strings.Contains(line, " 0/0 ") {
			t.Errorf("not root's: %s", line)
		}
	}
	// What he cannot read is named, not left out in silence.
	if err := os.Chmod(filepath.Join(c.Source, "etc/hostname"), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Build(context.Background(), c); err == nil || !strings.Contains(err.Error(), "etc/hostname") {
		t.Errorf("an unreadable file: %v", err)
	}
}
