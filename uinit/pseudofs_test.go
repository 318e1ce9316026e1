package main

import (
	"os"
	"testing"

	"viver.lan/internal/machine/machinetest"
)

// What the kernel runs is this program, by the name that run looks for, where it looks.
func TestTheKernelsCallForAModule(t *testing.T) {
	for want, files := range map[string]map[string]string{
		modprobe:             nil,
		"/usr/sbin/modprobe": {"/proc/sys/kernel/modprobe": "/usr/sbin/modprobe\n"},
	} {
		m := machinetest.New(t, files)
		if err := answerKernel(m); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(m.Path(want))
		if err != nil || info.Mode().Perm() != 0o755 {
			t.Errorf("%s: %v, %v", want, info, err)
		}
		if text, err := os.ReadFile(m.Path(want)); err != nil || string(text) != "#!/bbin/uinit modprobe\n" {
			t.Errorf("%s: %q, %v", want, text, err)
		}
	}
}
