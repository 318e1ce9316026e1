package sourcelist

import (
	"path"
	"slices"
	"strings"

	"viver.lan/internal/bytesize"
	"viver.lan/internal/imagetree"
)

// Large is a directory that an image may do without.
type Large struct {
	Path  string // from the root of the source, with a slash
	Bytes int64
	// Home says that it is a person's.
	Home bool
}

// String names it to people.
func (l Large) String() string {
	s := l.Path + ", " + bytesize.Words(l.Bytes)
	if l.Home {
		s += ", a person's files"
	}
	return s
}

const (
	leastLarge  = 64 << 20 // bytes of what is worth a question
	leastHome   = 1 << 20  // and of a home, which is one for other reasons, too
	mostOffered = 15
)

// system are directories at the top without which no system works as it did.
var system = []string{"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "boot", "efi", "etc", "dev", "proc", "sys", "run", "tmp", "nix", "gnu", "ostree", "sysroot", "snap"}

// packages are where package managers remember what is installed.
var packages = []string{"dpkg", "rpm", "pacman", "portage", "apk", "xbps", "apt", "systemd"}

// LargeIn lists directories of a tree that may stay out, the largest first, and how many bytes all files
// of the tree have.
func LargeIn(tree *imagetree.Tree) (list []Large, total int64) {
	sums := make(map[string]int64)
	_ = tree.Walk(func(name string, e *imagetree.Entry) error { // nothing in it fails
		total += e.Stored
		if unit := unitOf(name); unit != "" && e.Stored > 0 {
			sums[unit] += e.Stored
		}
		return nil
	})
	for name, bytes := range sums {
		home := isHome(name)
		if bytes >= leastLarge || home && bytes >= leastHome {
			list = append(list, Large{"/" + name, bytes, home})
		}
	}
	slices.SortFunc(list, func(a, b Large) int {
		if a.Bytes != b.Bytes {
			return int(min(max(b.Bytes-a.Bytes, -1), 1))
		}
		return strings.Compare(a.Path, b.Path)
	})
	return list[:min(len(list), mostOffered)], total
}

func isHome(unit string) bool { return path.Dir(unit) == "home" }

// unitOf returns the directory, of those that may stay out as a whole, that a file lies in; "" for none.
func unitOf(name string) string {
	parts := strings.SplitN(name, "/", 5)
	depth := 1
	switch {
	case strings.HasPrefix(name, "usr/local/") || strings.HasPrefix(name, "usr/src/"):
		depth = 2
	case slices.Contains(system, parts[0]):
		return ""
	case parts[0] == "var" && len(parts) > 2 && parts[1] == "lib":
		if slices.Contains(packages, parts[2]) {
			return ""
		}
		depth = 3
	case slices.Contains([]string{"home", "srv", "opt", "var"}, parts[0]):
		depth = 2
	}
	if len(parts) <= depth { // a file, which the directory above it has
		return ""
	}
	return strings.Join(parts[:depth], "/")
}
