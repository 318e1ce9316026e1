package imagebuild

import (
	"strings"
	"testing"

	"viver.lan/internal/exclude"
	"viver.lan/internal/imagetree"
	"viver.lan/internal/testlinux"
)

func TestSecurityNotes(t *testing.T) {
	root := testlinux.Write(t, []testlinux.File{{Name: "etc/selinux/config", Data: "SELINUX=enforcing\n"}, {Name: "etc/apparmor.d/x", Data: "profile x {}\n"}})
	for _, keep := range [][]string{nil, {"/etc/selinux"}} {
		tree, err := imagetree.Scan(t.Context(), root, &exclude.Choice{Keep: keep})
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		notes := strings.Join(securityNotes(tree), "\n")
		if !strings.Contains(notes, "AppArmor: a node loads") || strings.Contains(notes, "SELinux stays enforcing, as --keep asks, and 6 of 6 files have no label") != (keep != nil) {
			t.Errorf("kept %q: %s", keep, notes)
		}
	}
}
