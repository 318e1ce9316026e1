package bootwork

import (
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
)

// unitDirs are where systemd looks for units of the system (systemd.unit(5)); of two
// units with one name the first counts.
var unitDirs = []string{"etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"}

// readUnits returns the text of each unit, with all that is added to it by drop-ins.
func readUnits(tree fs.FS) map[string]string {
	units, dropIns := map[string]string{}, map[string]string{}
	for _, dir := range unitDirs {
		entries, _ := fs.ReadDir(tree, dir) // a tree need not have all of them
		for _, e := range entries {
			name := path.Join(dir, e.Name())
			if unit, ok := strings.CutSuffix(e.Name(), ".d"); ok {
				dropIns[unit] += readDropIns(tree, name)
				continue
			}
			if _, known := units[e.Name()]; !known && path.Ext(name) != ".wants" && path.Ext(name) != ".requires" {
				text, _ := fs.ReadFile(tree, name) // a link to /dev/null takes a unit away
				units[e.Name()] = string(text)
			}
		}
	}
	for unit, text := range dropIns {
		units[unit] += "\n" + text
	}
	return units
}

func readDropIns(tree fs.FS, dir string) (text string) {
	entries, _ := fs.ReadDir(tree, dir) // empty when it is none
	for _, e := range entries {
		if path.Ext(e.Name()) == ".conf" {
			more, _ := fs.ReadFile(tree, path.Join(dir, e.Name())) // a link to /dev/null takes it away
			text += string(more) + "\n"
		}
	}
	return text
}

// waiting returns the units that run while a directory has no stamp, in name order.
func waiting(units map[string]string, dir string) []string {
	var found []string
	for _, unit := range slices.Sorted(maps.Keys(units)) {
		if needsUpdate(units[unit], dir) {
			found = append(found, unit)
		}
	}
	return found
}

// needsUpdate reports whether a unit has the condition for a directory. A condition
// that is taken back later counts too: then no stamp is made, which costs time only.
func needsUpdate(unit, dir string) bool {
	for line := range strings.Lines(unit) {
		key, value, _ := strings.Cut(line, "=")
		key, value = strings.TrimSpace(key), strings.TrimPrefix(strings.TrimSpace(value), "|")
		if (key == "ConditionNeedsUpdate" || key == "AssertNeedsUpdate") && strings.Trim(value, "/ ") == dir {
			return true
		}
	}
	return false
}
