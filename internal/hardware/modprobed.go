package hardware

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// conf is what the files of modprobe.d(5) say.
type conf struct {
	blacklist map[string]bool   // modules that no device gets; by name they can be loaded
	off       map[string]string // modules that nothing loads, with the line that says so
	params    map[string]string
}

func newConf() conf {
	return conf{make(map[string]bool), make(map[string]string), make(map[string]string)}
}

// confDirs are where these files are, below a root. Of several with one name the first
// counts.
var confDirs = []string{"etc/modprobe.d", "run/modprobe.d", "usr/local/lib/modprobe.d", "lib/modprobe.d", "usr/lib/modprobe.d"}

// readConf reads the files below root, in the order of their names. One that cannot be read
// is left out, as modprobe does.
func (t *Tree) readConf(root string) {
	files := make(map[string]string)
	for _, dir := range slices.Backward(confDirs) {
		found, _ := filepath.Glob(filepath.Join(root, dir, "*.conf"))
		for _, path := range found {
			files[filepath.Base(path)] = path
		}
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		text, err := os.ReadFile(files[name])
		if err == nil {
			t.parseConf(string(text))
		}
	}
}

// parseConf adds what one file says: blacklist, options, alias, softdep, and of install the
// lines that switch a module off. Other programs that install lines name, and remove lines,
// are no business of an initramfs, which has no programs.
func (t *Tree) parseConf(text string) {
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		words := strings.Fields(line)
		if len(words) < 2 || strings.HasPrefix(words[0], "#") {
			continue
		}
		name := underscores(words[1])
		switch words[0] {
		case "blacklist":
			if !bootNeeds(name) {
				t.conf.blacklist[name] = true
			}
		case "options":
			t.conf.params[name] = join(t.conf.params[name], strings.Join(words[2:], " "))
		case "install":
			if len(words) > 2 && slices.Contains([]string{"true", "false", ":"}, filepath.Base(words[2])) && !bootNeeds(name) {
				t.conf.off[name] = strings.Join(words, " ")
			}
		case "alias":
			if len(words) == 3 {
				t.aliases.add(words[1], words[2], 0)
			}
		case "softdep":
			maps.Copy(t.soft, parseSoftdeps(line))
		}
	}
}

// bootNeeds reports whether no machine boots without a module: it is of the root disk or of
// the medium. Rules for hardened systems, such as the benchmarks of CIS, have squashfs and
// usb-storage switched off; what they protect is the system that is booted, whose own
// modprobe reads the same line.
func bootNeeds(name string) bool {
	return slices.Contains([]string{"nbd", "squashfs", "overlay", "af_packet", "loop", "isofs", "cdrom", "sr_mod", "usb_storage", "uas", "fat", "vfat"}, name)
}

// join puts parameters behind others.
func join(first, then string) string {
	return strings.TrimSpace(first + " " + then)
}

// refused says why a module is never loaded, nil when it may be.
func (c conf) refused(name string) error {
	if line := c.off[name]; line != "" {
		return fmt.Errorf("load module %s: modprobe.d switches it off: %s", name, line)
	}
	return nil
}
