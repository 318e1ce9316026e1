package bootwork

import (
	"fmt"
	"io/fs"
)

// checkConsole says whether Debian's console-setup compiles the keyboard's map at every
// boot. It does unless what it made is newer than its settings; where all has one date,
// as in an archive by mmdebstrap, nothing tells which was there first.
func checkConsole(tree fs.FS) (notes []string) {
	const made = "etc/console-setup/cached_setup_terminal.sh"
	if !isWanted(tree, "console-setup.service") {
		return nil
	}
	for _, settings := range []string{"etc/default/keyboard", "etc/default/console-setup"} {
		if order, ok := compareAges(tree, made, settings); !ok || order <= 0 { // test(1), -nt
			return append(notes, fmt.Sprintf("every boot compiles the console's keyboard map, because /%s is not newer than /%s (docs/images.md)", made, settings))
		}
	}
	return nil
}
