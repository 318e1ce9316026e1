package runes

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// LoadDir reads one bundle from its folder.
func LoadDir(dir string) (Bundle, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		var info fs.FileInfo
		if info, err = os.Stat(abs); err == nil && !info.IsDir() {
			err = fmt.Errorf("%s is no folder", dir)
		}
	}
	if err != nil {
		return Bundle{}, fmt.Errorf("read a rune: %w", err)
	}
	folder := filepath.Base(abs)
	b, err := loadFolder(os.DirFS(filepath.Dir(abs)), folder, &budget{files: maxFiles, bytes: maxBytes})
	if err != nil {
		return Bundle{}, &BrokenError{folder, err}
	}
	return b, nil
}

// CheckName says what is wrong with the name of a rune.
func CheckName(name string) error {
	if !validName(name) {
		return fmt.Errorf("%q is no name of a rune: want up to 63 small letters, digits and dashes", name)
	}
	return nil
}

// OnFAT returns an error where the bundle would not be the same on a medium's settings
// volume: FAT keeps neither symbolic links nor modes.
func (b Bundle) OnFAT() error {
	tree := make(map[string]node, len(b.tree))
	for _, name := range slices.Sorted(maps.Keys(b.tree)) {
		n := b.tree[name]
		if n.link != "" {
			return &BrokenError{b.Name, fmt.Errorf("%s is a symbolic link, which a medium's settings volume cannot keep: write it below [symlinks] in %s", name, manifestName)}
		}
		n.exec = false
		tree[name] = n
	}
	there, err := newBundle(b.Name, tree)
	if err != nil {
		return &BrokenError{b.Name, err}
	}
	for i, it := range b.items {
		if it.mode != there.items[i].mode {
			return &BrokenError{b.Name, fmt.Errorf("%s is executable here, which a medium's settings volume does not keep: add executable = [%q] to %s", it.path, it.path, manifestName)}
		}
	}
	return nil
}

// Report is what would become of a rune on a root.
type Report struct {
	// Errors are mistakes in it, which would degrade it.
	Errors []string `json:"errors,omitempty"`
	// Lacks is what it needs and the root does not have.
	Lacks []Missing `json:"lacks,omitempty"`
	// Unmet is the first of its conditions that does not hold there: it is skipped.
	Unmet string `json:"unmet,omitempty"`
}

// Check works out what would become of the bundle on a root, and writes nothing. All of its
// templates are rendered, also those whose conditions do not hold there.
func (b Bundle) Check(where Target, facts Facts) (Report, error) {
	t, err := openTarget(where)
	if err != nil {
		return Report{}, err
	}
	defer t.Close()
	s := scope{t: t, b: b, facts: facts}
	r := Report{Lacks: b.requires.missing(t), Unmet: b.when.unmet(t, facts)}
	failed := func(what string, err error) {
		if err != nil {
			r.Errors = append(r.Errors, what+err.Error())
		}
	}
	program := func(p, what string) {
		if _, known := b.requires.Programs[p]; !known && !t.exists(p) {
			r.Lacks = append(r.Lacks, Missing{What: fmt.Sprintf("%s wants %s, which is not in the image", what, p)})
		}
	}
	for _, it := range b.items {
		_, err := rendered(it, s)
		failed("", err)
	}
	for _, svc := range b.services {
		for i, arg := range svc.start {
			text, err := execute(arg, s)
			failed(fmt.Sprintf("service %s: ", svc.name), err)
			if i == 0 && err == nil && svc.when.unmet(t, facts) == "" {
				program(string(text), "service "+svc.name)
			}
		}
	}
	for _, moment := range slices.Sorted(maps.Keys(b.hooks)) {
		if h := b.hooks[moment]; len(h.interpreter) > 0 {
			program(h.interpreter[0], "hooks/"+string(moment))
		}
	}
	return r, nil
}

// Probes returns the paths in a root that Check looks at, beside those of kernel modules
// and of os-release.
func (b Bundle) Probes() []string {
	var paths []string
	add := func(c Conditions) {
		for _, list := range [][]string{c.Exists, c.Any, c.Missing, c.Plain} {
			paths = append(paths, list...)
		}
	}
	add(b.when)
	for p := range b.requires.Programs {
		paths = append(paths, p)
	}
	for _, it := range b.items {
		add(it.when)
		paths = append(paths, it.path)
	}
	for _, svc := range b.services {
		add(svc.when)
		paths = append(paths, svc.source[0])
	}
	for _, h := range b.hooks {
		paths = append(paths, h.interpreter[:min(1, len(h.interpreter))]...)
	}
	return paths
}

// Conflicts returns an error for each file that one bundle lays over that of another. On
// a given machine conditions may keep them apart.
func Conflicts(bundles []Bundle) error {
	var errs []error
	owner := make(map[string]string)
	for _, b := range Merge(bundles) {
		for _, it := range b.items {
			if it.live || len(it.roles) > 0 {
				continue // @vrune lays it, and says what conflicts there
			}
			if other := owner[it.path]; other != "" && it.replaces() {
				errs = append(errs, overlap(it.path, other, b.Name))
			}
			owner[it.path] = b.Name
		}
	}
	return errors.Join(errs...)
}

// replaces reports whether the item takes the place of what was there: a template that
// starts from the existing file adds to it.
func (it item) replaces() bool { return !bytes.Contains(it.data, []byte("existing")) || it.tmpl == nil }

func overlap(path, earlier, later string) error {
	return fmt.Errorf("%s is laid by the runes %s and %s: that of %s stays, which goes later", path, earlier, later, later)
}
