package imagebuild

import (
	"archive/tar"
	"fmt"
	"io/fs"
	"strings"

	"viver.lan/internal/imagetree"
)

// securityNotes says what becomes of AppArmor, and of an SELinux that --keep leaves
// enforcing. What becomes of it by default is in the report (package rootfs).
func securityNotes(tree *imagetree.Tree) (notes []string) {
	const selinux = "etc/selinux/config"
	if config, err := tree.ReadFile(selinux); err == nil && tree.Rules.Keeps(selinux) && strings.Contains(string(config), "SELINUX=enforcing") {
		if without, all := unlabelled(tree); without > 0 {
			notes = append(notes, fmt.Sprintf("warning: SELinux stays enforcing, as --keep asks, and %d of %d files have no label: it denies nearly everything that has to do with them", without, all))
		}
	}
	if _, err := fs.ReadDir(tree, "etc/apparmor.d"); err == nil {
		notes = append(notes, "AppArmor: a node loads the profiles as the source does; where only the source's kernel command line turned it on, write that into boot.kernel-arguments (docs/images.md)")
	}
	return notes
}

// unlabelled counts the files without a label of SELinux, and all.
func unlabelled(tree *imagetree.Tree) (without, all int) {
	_ = tree.Walk(func(_ string, e *imagetree.Entry) error { // nothing in it fails
		if e.Header.Typeflag == tar.TypeLink {
			return nil
		}
		all++
		if e.Header.PAXRecords["SCHILY.xattr.security.selinux"] == "" {
			without++
		}
		return nil
	})
	return without, all
}
