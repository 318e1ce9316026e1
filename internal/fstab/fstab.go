// Package fstab reads the table of an installed Linux that says what is mounted where, as
// fstab(5) has it. It mounts nothing and finds no disks. The invariant: whatever the text,
// there is a list, perhaps empty.
package fstab

import (
	"slices"
	"strings"

	"viver.lan/internal/mountinfo"
)

// Line is a line of the table that says something.
type Line struct {
	Source, Point, Type string
	Options             []string
}

// Has reports whether a line has an option.
func (l Line) Has(option string) bool { return slices.Contains(l.Options, option) }

// Parse reads a table. Lines that say nothing are ignored.
func Parse(data []byte) []Line {
	var list []Line
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 3 || strings.HasPrefix(f[0], "#") {
			continue
		}
		l := Line{Source: mountinfo.Unescape(f[0]), Point: mountinfo.Unescape(f[1]), Type: f[2]}
		if len(f) > 3 {
			l.Options = strings.Split(f[3], ",")
		}
		list = append(list, l)
	}
	return list
}
