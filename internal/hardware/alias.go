package hardware

import (
	"path"
	"slices"
	"strings"
)

// Aliases finds the modules that claim a device, from the text of a
// modules.alias file (see depmod(8)): lines "alias PATTERN MODULE", where
// PATTERN is a shell pattern that is compared with a device's modalias.
//
// Patterns are indexed by the literal text before their first wildcard. There
// are tens of thousands of patterns but only some dozens of lengths of that
// text, so a lookup is a map access per length instead of a scan.
type Aliases struct {
	byPrefix map[string][]alias
	lengths  []int // of the keys of byPrefix, ascending
}

type alias struct {
	rest   string // the pattern from its first wildcard on
	module string
	line   int // keeps the answer in the order of the file
}

// ParseAliases reads the text of a modules.alias file. Lines that are not
// aliases are ignored: one bad line must not cost a machine its drivers.
func ParseAliases(text string) *Aliases {
	a := &Aliases{byPrefix: make(map[string][]alias)}
	a.parse(text)
	return a
}

func (a *Aliases) parse(text string) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		body, ok := strings.CutPrefix(strings.TrimSpace(line), "alias ")
		if !ok {
			continue
		}
		// Some modalias patterns hold blanks (dmi:*), so the module is what
		// follows the last one.
		i := strings.LastIndexByte(body, ' ')
		if i < 0 {
			continue
		}
		a.add(strings.TrimSpace(body[:i]), body[i+1:], n)
	}
}

func (a *Aliases) add(pattern, module string, line int) {
	pattern = underscores(pattern)
	i := strings.IndexAny(pattern, `*?[\`)
	if i < 0 {
		i = len(pattern)
	}
	key := pattern[:i]
	a.byPrefix[key] = append(a.byPrefix[key], alias{pattern[i:], underscores(module), line})
	if at, found := slices.BinarySearch(a.lengths, i); !found {
		a.lengths = slices.Insert(a.lengths, at, i)
	}
}

// Match returns the modules whose patterns match modalias, each once, in the
// order of the file.
func (a *Aliases) Match(modalias string) []string {
	if a == nil {
		return nil
	}
	modalias = underscores(modalias)
	var hits []alias
	for _, n := range a.lengths {
		if n > len(modalias) {
			break
		}
		for _, al := range a.byPrefix[modalias[:n]] {
			if glob(al.rest, modalias[n:]) {
				hits = append(hits, al)
			}
		}
	}
	slices.SortStableFunc(hits, func(x, y alias) int { return x.line - y.line })
	var modules []string
	for _, h := range hits {
		if !slices.Contains(modules, h.module) {
			modules = append(modules, h.module)
		}
	}
	return modules
}

// underscores spells a module name or alias the way the kernel does: '-' and
// '_' are the same letter, except inside a bracket expression, where '-' is a
// range.
func underscores(s string) string {
	if !strings.Contains(s, "-") {
		return s
	}
	b := []byte(s)
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '-':
			b[i] = '_'
		case '[':
			end := strings.IndexByte(s[i:], ']')
			if end < 0 {
				return string(b)
			}
			i += end
		}
	}
	return string(b)
}

// glob is fnmatch(3) with no flags: '*' and '?' match '/' and a leading dot too, and '!'
// begins a set of what shall not match. But what path.Match takes for a mistake matches
// nothing: a set that is not closed, begins with ']' or '-' or ends with '-', and a
// backslash at the end. No known alias has any of these.
func glob(pattern, s string) bool {
	pattern = strings.ReplaceAll(strings.ReplaceAll(pattern, "/", "\x00"), "[!", "[^")
	ok, _ := path.Match(pattern, strings.ReplaceAll(s, "/", "\x00"))
	return ok
}
