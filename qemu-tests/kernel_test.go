package scenarios

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"viver.lan/internal/bootfiles"
	"viver.lan/kernelconfig"
	"viver.lan/qemu-tests/harness"
)

// Debian's configuration and the differences of images/kernel become one by the kernel's own
// rules, which refuse what cannot be; then all that VIVER asks for is built in. No kernel is
// built and no machine is started.
func TestFullKernelConfig(t *testing.T) {
	harness.Need(t, "make", "gcc", "flex", "bison")
	root, err := harness.ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if text, err := exec.CommandContext(t.Context(), filepath.Join(root, "images", "kernel", "build.sh"), dir, "config").CombinedOutput(); err != nil {
		t.Fatalf("images/kernel/build.sh: %v\n%s", err, text)
	}
	f, err := os.Open(filepath.Join(dir, "config"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	config, err := kernelconfig.ParseConfig(f)
	if err != nil {
		t.Fatal(err)
	}
	verdicts, err := bootfiles.JudgeConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range verdicts {
		if v.Has != bootfiles.BuiltIn {
			t.Errorf("%s is %s: %s", v.Option, v.Has, v.Reason)
		}
	}
}
