package runes

import (
	"fmt"
	"slices"
	"strings"

	"viver.lan/internal/initsystem"
)

// Conditions say when a rune, or one of its files, is wanted. All of them must
// hold; the package comment explains each.
type Conditions struct {
	Exists  []string `toml:"exists"`
	Any     []string `toml:"any"`
	Missing []string `toml:"missing"`
	Plain   []string `toml:"plain"`
	Facts   []string `toml:"facts"`
	Init    []string `toml:"init"`
}

func (c Conditions) empty() bool {
	return len(c.Exists)+len(c.Any)+len(c.Missing)+len(c.Plain)+len(c.Facts)+len(c.Init) == 0
}

// check finds what could never hold on any machine.
func (c Conditions) check() error {
	for _, list := range [][]string{c.Exists, c.Any, c.Missing, c.Plain} {
		for _, p := range list {
			if _, err := rootPath(p); err != nil {
				return err
			}
		}
	}
	for _, name := range c.Facts {
		if !knownFact(name) {
			return fmt.Errorf("there is no fact %q; there are %s", name, strings.Join(factNames(), ", "))
		}
	}
	for _, name := range c.Init {
		if !slices.Contains(initsystem.Kinds(), initsystem.Kind(name)) {
			return fmt.Errorf("there is no init %q; there are %s", name, initsystem.KindNames())
		}
	}
	return nil
}

// unmet returns in words the first condition that does not hold on this root,
// or "".
func (c Conditions) unmet(t *target, f Facts) string {
	for _, p := range c.Exists {
		if !t.exists(p) {
			return p + " is not in the image"
		}
	}
	for _, p := range c.Missing {
		if t.exists(p) {
			return p + " is in the image"
		}
	}
	for _, p := range c.Plain {
		if t.isLink(p) {
			return p + " is a symbolic link"
		}
	}
	for _, name := range c.Facts {
		if !f.known(name) {
			return "the fact " + name + " is not known"
		}
	}
	if len(c.Init) > 0 && !slices.Contains(c.Init, f.Init) {
		return fmt.Sprintf("process 1 is %q, want %s", f.Init, strings.Join(c.Init, " or "))
	}
	for _, p := range c.Any {
		if t.exists(p) {
			return ""
		}
	}
	if len(c.Any) > 0 {
		return "none of " + strings.Join(c.Any, ", ") + " is in the image"
	}
	return ""
}
