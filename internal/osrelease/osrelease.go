// Package osrelease reads which distribution an installed Linux is, as os-release(5) has it.
// The invariant: a tree without that file has no name, and nothing fails.
package osrelease

import (
	"io/fs"
	"strings"
)

// Files are where it may be; the first that exists counts.
func Files() []string { return []string{"etc/os-release", "usr/lib/os-release"} }

// PrettyName is what the distribution calls itself to people; "" when nothing says so.
func PrettyName(linux fs.FS) string {
	for _, name := range Files() {
		data, _ := fs.ReadFile(linux, name) // without it there is the other
		for line := range strings.Lines(string(data)) {
			v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME=")
			if v = strings.Trim(v, `"'`); ok && v != "" {
				return v
			}
		}
	}
	return ""
}
