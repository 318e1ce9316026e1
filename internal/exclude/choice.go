package exclude

import (
	"fmt"
	"path"
	"strings"
	"sync/atomic"
)

// Choice is what whoever builds an image wants otherwise than the rules: patterns of
// path.Match below the root, each with all that lies below it.
type Choice struct {
	// Keep is in the image in spite of a rule that leaves it out, Exclude is not,
	// although no rule says so. Where both match, the pattern with more levels holds, and
	// Exclude of two that have as many. Such a Keep brings no secret that it does not name.
	Keep, Exclude []string
}

// patterns were given by a flag.
type patterns struct {
	list    []string
	matched []atomic.Bool // each: some name
}

// match reports whether one of them matches a name.
func (p patterns) match(name string) (found bool) {
	for i, text := range p.list {
		if ok, _ := path.Match(text, name); ok { // New has checked its syntax
			p.matched[i].Store(true)
			found = true
		}
	}
	return found
}

// levels returns how many levels the longest part of a name has that one of them
// matches: the name, or a directory it lies in; 0 for none.
func (p patterns) levels(name string) int {
	if len(p.list) == 0 {
		return 0
	}
	for ; name != "."; name = path.Dir(name) {
		if p.match(name) {
			return levels(name)
		}
	}
	return 0
}

// Literal is the pattern that matches a name and no other.
func Literal(name string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(name)
}

// ParsePatterns reads a file of patterns: one in a line, where "#" begins a comment
// and blanks around a pattern do not count.
func ParsePatterns(text string) (list []string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			list = append(list, line)
		}
	}
	return list
}

// cleaned checks patterns that were given by a flag.
func cleaned(flag string, given []string) (patterns, error) {
	p := patterns{matched: make([]atomic.Bool, len(given))}
	for _, text := range given {
		if _, err := path.Match(text, ""); err != nil {
			return patterns{}, fmt.Errorf("%s %s: %w", flag, text, err)
		}
		p.list = append(p.list, Clean(text))
	}
	return p, nil
}
