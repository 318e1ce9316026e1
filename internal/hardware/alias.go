package hardware

import (
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

// glob is fnmatch(3) with no flags: '*' and '?' match '/' and a leading dot
// too, '[' begins a set with ranges and '!' for "none of", and a backslash
// takes the next letter literally.
func glob(pattern, s string) bool {
	// On a mismatch, go back to the last star and let it match one byte
	// more. Only the last star can ever need that, so this stays quadratic.
	starP, starS := -1, 0
	p, i := 0, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			starP, starS = p, i
			p++
			continue
		}
		if ok, width := matchOne(pattern[p:], s[i]); ok {
			p += width
			i++
			continue
		}
		if starP < 0 {
			return false
		}
		starS++
		p, i = starP+1, starS
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// matchOne compares one byte with the first element of the pattern and returns
// the element's width.
func matchOne(pattern string, c byte) (ok bool, width int) {
	if pattern == "" {
		return false, 0
	}
	switch pattern[0] {
	case '?':
		return true, 1
	case '[':
		if ok, width := matchSet(pattern, c); width > 0 {
			return ok, width
		}
	case '\\':
		if len(pattern) > 1 {
			return pattern[1] == c, 2
		}
		return false, 1 // nothing is escaped: matches nothing
	}
	return pattern[0] == c, 1
}

// matchSet compares one byte with the bracket expression that pattern begins
// with. A width of 0 means that the bracket is never closed and so is an
// ordinary letter.
func matchSet(pattern string, c byte) (ok bool, width int) {
	i := 1
	negate := i < len(pattern) && (pattern[i] == '!' || pattern[i] == '^')
	if negate {
		i++
	}
	found := false
	for first := true; i < len(pattern); first = false {
		if pattern[i] == ']' && !first {
			return found != negate, i + 1
		}
		lo, n := setByte(pattern[i:])
		i += n
		hi := lo
		if i+1 < len(pattern) && pattern[i] == '-' && pattern[i+1] != ']' {
			hi, n = setByte(pattern[i+1:])
			i += 1 + n
		}
		found = found || lo <= c && c <= hi
	}
	return false, 0
}

func setByte(s string) (b byte, width int) {
	if s[0] == '\\' && len(s) > 1 {
		return s[1], 2
	}
	return s[0], 1
}
