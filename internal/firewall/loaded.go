package firewall

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// loaded reports whether the kernel has a module, as one or built in. To ask the
// kernel for what it has not would load it.
func (k *Keeper) loaded(module string) bool {
	if _, err := os.Stat(filepath.Join(k.root, "sys/module", module)); err == nil {
		return true
	}
	if _, err := os.Stat(filepath.Join(k.root, "proc/modules")); err != nil {
		return true // a kernel that has no modules loads none
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return false
	}
	release := unix.ByteSliceToString(name.Release[:])
	// In the initramfs, and in the distribution's root.
	for _, root := range []string{"", "proc/1/root"} {
		list, err := os.ReadFile(filepath.Join(k.root, root, "lib/modules", release, "modules.builtin"))
		if err == nil && strings.Contains(string(list), "/"+module+".ko\n") {
			return true
		}
	}
	return false
}
