package mountinfo

import (
	"slices"
	"strings"
)

// Line is a line of fstab(5) that says something.
type Line struct {
	Source, Point, Type string
	Options             []string
}

// Has reports whether a line has an option.
func (l Line) Has(option string) bool { return slices.Contains(l.Options, option) }

// ParseTable reads a table. Lines that say nothing are ignored.
func ParseTable(data []byte) []Line {
	var list []Line
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 3 || strings.HasPrefix(f[0], "#") {
			continue
		}
		l := Line{Source: Unescape(f[0]), Point: Unescape(f[1]), Type: f[2]}
		if len(f) > 3 {
			l.Options = strings.Split(f[3], ",")
		}
		list = append(list, l)
	}
	return list
}
