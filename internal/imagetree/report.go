package imagetree

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"viver.lan/internal/exclude"
)

// Kinds of changes.
const (
	DateChanged      = "dates outside of 1970 to 2106, which became the nearest"
	OwnerChanged     = "owners that no system has, which became nobody"
	ACLDropped       = "access control lists dropped, which a squashfs cannot hold; nobody gains a right by it"
	AttributeDropped = "extended attributes dropped, which a squashfs cannot hold or a node must not have"
	Unsupported      = "files left out, which a squashfs cannot hold"
	FileChanged      = "files that changed while they were read"
	// Permissive is for the configuration of SELinux.
	Permissive = "SELinux, enforcing in the source, is permissive on a node: it logs what it would deny (docs/images.md)"
	// Added is for what an image has that its source lacks.
	InitLinked = "added, because a node starts /sbin/init, and this Linux has its init elsewhere"
	Added      = "added, so that systemd does not do at every boot what it does after an update"
)

// Bounds of the report.
const (
	maxItems   = 20000 // with their names; further ones are counted
	namesShown = 6     // of each reason, on the terminal
)

// Report collects what an image lacks of its source, by reason.
type Report struct {
	groups []*group
	index  map[string]*group
	items  int
}

// group is everything that has one reason.
type group struct {
	title    string
	canKeep  bool // by --keep
	fileOnly bool // in the file only
	count    int
	bytes    int64
	items    []*item
}

// item is a file, or a directory with all it holds.
type item struct {
	name  string
	bytes int64
}

// NewReport returns an empty report.
func NewReport() *Report { return &Report{index: make(map[string]*group)} }

func (r *Report) group(title string, canKeep bool) *group {
	g := r.index[title]
	if g == nil {
		g = &group{title: title, canKeep: canKeep}
		r.index[title] = g
		r.groups = append(r.groups, g)
	}
	return g
}

// add notes one more file; the bytes that it has may be added later.
func (r *Report) add(g *group, name string, bytes int64) *item {
	i := &item{name, bytes}
	g.count++
	g.bytes += bytes
	if r.items++; r.items <= maxItems {
		g.items = append(g.items, i)
	}
	return i
}

// LeftOut notes a file that stays out by a rule. What it returns adds further bytes,
// of what a directory holds.
func (r *Report) LeftOut(rule *exclude.Rule, name string, bytes int64) func(int64) {
	g := r.group("left out, "+rule.Reason, !rule.Always && rule != exclude.Chosen)
	g.fileOnly = rule.Uncounted
	if n := len(g.items); n > 0 && g.items[n-1].name == name { // a tar has one member after another
		g.items[n-1].bytes += bytes
		g.bytes += bytes
		return func(int64) {}
	}
	i := r.add(g, name, bytes)
	return func(n int64) { i.bytes += n; g.bytes += n }
}

// Emptied notes a file that is in the image without its content.
func (r *Report) Emptied(rule *exclude.Rule, name string, bytes int64) {
	r.add(r.group("emptied, "+rule.Reason, !rule.Always), name, bytes)
}

// Changed notes a file that is in the image, but not as it was, or not at all; what
// is one of the kinds above.
func (r *Report) Changed(what, name string, bytes int64) {
	r.add(r.group(what, false), name, bytes)
}

// Lines has a line for each reason, for people.
func (r *Report) Lines() []string {
	var lines []string
	for _, g := range r.groups {
		if g.fileOnly {
			continue
		}
		var names []string
		for _, item := range g.items[:min(len(g.items), namesShown)] {
			names = append(names, printable(item.name))
		}
		line := fmt.Sprintf("%s: %d, %s: %s", g.title, g.count, sizeWords(g.bytes), strings.Join(names, ", "))
		if more := g.count - len(names); more > 0 {
			line += fmt.Sprintf(" and %d more", more)
		}
		if g.canKeep {
			line += " (--keep brings it)"
		}
		lines = append(lines, line)
	}
	return lines
}

// Write writes the whole report: each file with its size and the reason.
func (r *Report) Write(w io.Writer) error {
	for _, g := range r.groups {
		if _, err := fmt.Fprintf(w, "# %s: %d, %d bytes\n", g.title, g.count, g.bytes); err != nil {
			return err
		}
		for _, item := range g.items {
			if _, err := fmt.Fprintf(w, "%d\t%s\n", item.bytes, printable(item.name)); err != nil {
				return err
			}
		}
		if more := g.count - len(g.items); more > 0 {
			if _, err := fmt.Fprintf(w, "# and %d more\n", more); err != nil {
				return err
			}
		}
	}
	return nil
}

// printable quotes a name that would spoil a line.
func printable(name string) string {
	name = "/" + strings.TrimPrefix(name, "/")
	if q := strconv.Quote(name); q != `"`+name+`"` {
		return q
	}
	return name
}

func sizeWords(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}
