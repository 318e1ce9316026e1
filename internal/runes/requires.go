package runes

import (
	"fmt"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strings"

	"viver.lan/internal/distribution"
)

// knownVersion is the layout of rune.toml that this VIVER reads.
const knownVersion = 1

// Requires is what the image must have for a rune to be of use. A machine whose image
// lacks some of it goes without the rune.
type Requires struct {
	// Programs are paths, each with the package that brings it.
	Programs map[string]string `toml:"programs"`
	// Modules are drivers of the kernel, as modules or built in, each with the package
	// that brings it.
	Modules map[string]string `toml:"modules"`
	// Distribution are those that the rune is for, as ID in os-release(5); nil for all.
	Distribution []string `toml:"distribution"`
}

// Missing is something that a rune requires and an image lacks.
type Missing struct {
	What    string `json:"what"`              // in words
	Package string `json:"package,omitempty"` // which brings it; "" if none does
}

func (m Missing) String() string {
	if m.Package == "" {
		return m.What
	}
	return m.What + " (package " + m.Package + ")"
}

func (r Requires) check() error {
	for _, p := range slices.Sorted(maps.Keys(r.Programs)) {
		if _, err := rootPath(p); err != nil {
			return at(err, "programs", p)
		}
		if err := checkPackage(r.Programs[p]); err != nil {
			return at(err, "programs", p)
		}
	}
	for _, m := range slices.Sorted(maps.Keys(r.Modules)) {
		if !regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`).MatchString(m) {
			return at(fmt.Errorf("want a kernel module's name, such as nfsd"), "modules", m)
		}
		if err := checkPackage(r.Modules[m]); err != nil {
			return at(err, "modules", m)
		}
	}
	for _, id := range r.Distribution {
		if !regexp.MustCompile(`^[a-z0-9._-]{1,64}$`).MatchString(id) {
			return at(fmt.Errorf("%q: want an ID of os-release, such as debian", id), "distribution")
		}
	}
	return nil
}

// checkPackage takes the names of packages of all distributions.
func checkPackage(s string) error {
	if !regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9+._-]{0,127}$`).MatchString(s) {
		return fmt.Errorf("%q: want the name of the package that brings it", s)
	}
	return nil
}

// missing returns what this root lacks, in a fixed order.
func (r Requires) missing(t *target) []Missing {
	var list []Missing
	if len(r.Distribution) > 0 {
		have := t.distributions()
		if !slices.ContainsFunc(have, func(id string) bool { return slices.Contains(r.Distribution, id) }) {
			is := "unknown"
			if len(have) > 0 {
				is = have[0]
			}
			list = append(list, Missing{What: fmt.Sprintf("the rune is for %s, the image is %s", strings.Join(r.Distribution, ", "), is)})
		}
	}
	for _, p := range slices.Sorted(maps.Keys(r.Programs)) {
		if !t.exists(p) {
			list = append(list, Missing{p + " is not in the image", r.Programs[p]})
		}
	}
	if len(r.Modules) == 0 {
		return list
	}
	have := t.modules()
	for _, m := range slices.Sorted(maps.Keys(r.Modules)) {
		if !have[underscores(m)] {
			list = append(list, Missing{"the kernel module " + m + " is not in the image", r.Modules[m]})
		}
	}
	return list
}

// skips says why the bundle is not wanted on a root, "" when it is.
func (b Bundle) skips(t *target, facts Facts) string {
	if reason := b.when.unmet(t, facts); reason != "" {
		return reason
	}
	return needs(b.requires.missing(t))
}

// needs makes one sentence of what is missing: the packages first, because to install
// them is what helps.
func needs(list []Missing) string {
	var packages, reasons []string
	for _, m := range list {
		if m.Package != "" && !slices.Contains(packages, m.Package) {
			packages = append(packages, m.Package)
		}
		reasons = append(reasons, m.What)
	}
	if len(packages) == 0 {
		return strings.Join(reasons, "; ")
	}
	return "needs " + strings.Join(packages, ", ") + ": " + strings.Join(reasons, "; ")
}

// distributions returns what the root is, and what it is like, by os-release(5).
func (t *target) distributions() []string {
	for _, name := range distribution.Files() {
		release, err := t.content("/" + name)
		if err != nil || release == "" {
			continue
		}
		d := distribution.Parse(release)
		if d.ID == "" {
			return d.Like
		}
		return append([]string{d.ID}, d.Like...)
	}
	return nil
}

// modules returns the kernel modules of the root, those that are built in too, with
// underscores for dashes. An image has one kernel.
func (t *target) modules() map[string]bool {
	have := make(map[string]bool)
	dir, err := t.resolve("/lib/modules")
	if err != nil {
		return have
	}
	r, name := t.at(dir)
	releases, err := fs.ReadDir(r.FS(), name)
	if err != nil {
		return have
	}
	for _, release := range releases {
		for _, list := range []string{"modules.dep", "modules.builtin"} {
			paths, err := t.content(dir + "/" + release.Name() + "/" + list)
			if err != nil {
				continue // as if it were not there
			}
			for line := range strings.Lines(paths) {
				file, _, _ := strings.Cut(strings.TrimSpace(line), ":")
				module, _, _ := strings.Cut(file[strings.LastIndexByte(file, '/')+1:], ".ko")
				have[underscores(module)] = true
			}
		}
	}
	return have
}

func underscores(module string) string { return strings.ReplaceAll(module, "-", "_") }
