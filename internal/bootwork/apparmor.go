package bootwork

import (
	"fmt"
	"io/fs"
	"path"
	"slices"
)

// checkProfiles says how many profiles AppArmor compiles at every boot. The compiled
// form is for one kernel, whose features only that kernel tells, so it is made on a
// machine that runs it.
func checkProfiles(tree fs.FS) (notes []string) {
	const source, cache = "etc/apparmor.d", "var/cache/apparmor"
	if !isWanted(tree, "apparmor.service") {
		return nil
	}
	var profiles []string
	entries, _ := fs.ReadDir(tree, source) // without it there are none
	for _, e := range entries {
		if e.Type().IsRegular() {
			profiles = append(profiles, e.Name())
		}
	}
	fewest := len(profiles)
	kernels, _ := fs.ReadDir(tree, cache) // without it none is compiled
	for _, kernel := range kernels {
		lacking := 0
		for _, profile := range profiles {
			order, ok := compareAges(tree, path.Join(cache, kernel.Name(), profile), path.Join(source, profile))
			if !ok || order < 0 {
				lacking++
			}
		}
		fewest = min(fewest, lacking)
	}
	if fewest > 0 {
		notes = append(notes, fmt.Sprintf("every boot compiles %d of %d AppArmor profiles, which /%s lacks or has older ones of (docs/images.md says how to bring them)", fewest, len(profiles), cache))
	}
	return notes
}

// compareAges compares when two files were written, as cmp.Compare does; ok is false
// unless both exist.
func compareAges(tree fs.FS, made, source string) (order int, ok bool) {
	result, err := fs.Stat(tree, made)
	from, err2 := fs.Stat(tree, source)
	if err != nil || err2 != nil {
		return 0, false
	}
	return result.ModTime().Compare(from.ModTime()), true
}

// isWanted reports whether a unit starts at boot by itself.
func isWanted(tree fs.FS, unit string) bool {
	return slices.ContainsFunc(unitDirs, func(dir string) bool {
		wants, _ := fs.Glob(tree, path.Join(dir, "*.wants", unit)) // the pattern is ours
		return len(wants) > 0
	})
}
