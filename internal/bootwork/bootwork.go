// Package bootwork spares the nodes work that a distribution does once after an
// installation or an update, and that a machine without a disk would do at every
// boot because it forgets that it did.
//
// systemd has stamp files for it: units with ConditionNeedsUpdate= run when /etc/.updated
// or /var/.updated is missing or older than /usr (systemd.unit(5),
// systemd-update-done.service(8)). Package managers do the same work while they
// install and leave no stamp. So Stamp looks whether the work is done, and makes the
// stamp.
//
// It runs no program of the tree, which may be another machine's or a stranger's,
// and makes none of the files that these units make. The invariant: a directory is
// stamped only when each unit that waits for the stamp is known here and would find
// nothing to do; otherwise it stays as it was, and the reason is a sentence.
package bootwork

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"viver.lan/internal/imagetree"
)

// jobs are the units that wait for a stamp, each with the function that says what
// they would change; its error is the first such thing.
var jobs = map[string]func(fs.FS) error{
	"ldconfig.service":                       checkLibraries,
	"systemd-hwdb-update.service":            checkHardware,
	"systemd-journal-catalog-update.service": checkCatalog,
	"systemd-sysusers.service":               checkUsers,
	// It makes the stamp.
	"systemd-update-done.service": func(fs.FS) error { return nil },
}

// stamped are the directories whose stamp systemd compares with /usr.
var stamped = []string{"etc", "var"}

// Stamp marks what of a tree is up to date, and returns a sentence for each part that
// is not and costs every boot some time. A stamp named by --keep is left as it is.
func Stamp(tree *imagetree.Tree) (notes []string) {
	usr, err := fs.Stat(tree, "usr")
	if err != nil {
		return nil
	}
	units := readUnits(tree)
	for _, dir := range stamped {
		name := dir + "/.updated"
		waiting := waiting(units, dir)
		if len(waiting) == 0 || tree.Rules.Keeps(name) || isStamped(tree, name, usr.ModTime()) {
			continue
		}
		if reasons := undone(tree, waiting); len(reasons) > 0 {
			notes = append(notes, fmt.Sprintf("every boot runs what systemd runs after an update of /%s: %s", dir, strings.Join(reasons, "; ")))
			continue
		}
		text := content(dir, usr.ModTime())
		tree.Add(name, text, usr.ModTime())
		tree.Report.Changed(imagetree.Added, name, int64(len(text)))
	}
	return slices.Concat(notes, checkProfiles(tree), checkConsole(tree))
}

// isStamped reports whether the source's own systemd has done what there was to do. What
// is no file stays as it is, too.
func isStamped(tree fs.FS, name string, usr time.Time) bool {
	fi, err := fs.Stat(tree, name)
	return err == nil && !(fi.Mode().IsRegular() && fi.ModTime().Before(usr))
}

// undone says what the units would still do.
func undone(tree fs.FS, units []string) (reasons []string) {
	for _, unit := range units {
		check, known := jobs[unit]
		if !known {
			reasons = append(reasons, unit+" is not known to VIVER")
		} else if err := check(tree); err != nil {
			reasons = append(reasons, fmt.Sprintf("%s, because %v", unit, err))
		}
	}
	return reasons
}

// content is what systemd-update-done(8) would write: its time has nanoseconds, for file
// systems that have not.
func content(dir string, usr time.Time) []byte {
	return fmt.Appendf(nil, "# Written by \"viver image build\" in place of systemd-update-done.service(8):\n"+
		"# the time is that of the /usr for which /%s is up to date.\nTIMESTAMP_NSEC=%d\n", dir, usr.UnixNano())
}
