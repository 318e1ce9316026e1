package main

import (
	"os"
	"path/filepath"
	"testing"
)

// What the kernel runs is this program, by the name that run looks for.
func TestTheKernelsCallForAModule(t *testing.T) {
	file := filepath.Join(t.TempDir(), modprobe)
	if err := answerKernel(file); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "#!/bbin/uinit modprobe\n" {
		t.Errorf("%q, %v", text, err)
	}
}
