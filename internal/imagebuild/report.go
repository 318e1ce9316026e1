package imagebuild

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// ReportFile lists, in an image's directory, what the image has not of its
// source, each with its size and the reason. It is for whoever built the image
// and is no part of it.
const ReportFile = "report.txt"

// Kinds of changes to what does travel.
const (
	dateChanged      = "dates outside of 1970 to 2106, which became the nearest"
	ownerChanged     = "owners that no system has, which became nobody"
	aclDropped       = "access control lists dropped, which a squashfs cannot hold; nobody gains a right by it"
	attributeDropped = "extended attributes dropped, which a squashfs cannot hold or a node must not have"
	notHeld          = "files left out, which a squashfs cannot hold"
	fileChanged      = "files that changed while they were read"
)

// Bounds of the report.
const (
	maxItems   = 20000 // with their names; further ones are counted
	namesShown = 6     // of each reason, on the terminal
)

// report collects what an image has not of its source, by reason.
type report struct {
	groups []*reportGroup
	index  map[string]*reportGroup
	items  int
}

// reportGroup is everything that has one reason.
type reportGroup struct {
	title string
	// kept says that --keep brings it; quiet ones are in the file only.
	kept  bool
	quiet bool
	count int
	bytes int64
	items []*reportItem
}

// reportItem is a file, or a directory with all it holds.
type reportItem struct {
	name  string
	bytes int64
}

func newReport() *report { return &report{index: make(map[string]*reportGroup)} }

func (r *report) group(title string, kept bool) *reportGroup {
	g := r.index[title]
	if g == nil {
		g = &reportGroup{title: title, kept: kept}
		r.index[title] = g
		r.groups = append(r.groups, g)
	}
	return g
}

// add notes one more file; the bytes that it has may be added later.
func (r *report) add(g *reportGroup, name string, bytes int64) *reportItem {
	item := &reportItem{name, bytes}
	g.count++
	g.bytes += bytes
	if r.items++; r.items <= maxItems {
		g.items = append(g.items, item)
	}
	return item
}

// leave notes what stays out by a rule. What is returned counts further bytes.
func (r *report) leave(rule *rule, name string, bytes int64) func(int64) {
	g := r.group("left out, "+rule.reason, !rule.always)
	g.quiet = rule.uncounted
	if n := len(g.items); n > 0 && g.items[n-1].name == name { // a tar has one member after another
		g.items[n-1].bytes += bytes
		g.bytes += bytes
		return func(int64) {}
	}
	item := r.add(g, name, bytes)
	return func(n int64) { item.bytes += n; g.bytes += n }
}

// empty notes a file that travels without what it held.
func (r *report) empty(rule *rule, name string, bytes int64) {
	r.add(r.group("emptied, "+rule.reason, true), name, bytes)
}

// change notes a file that travels otherwise than it was.
func (r *report) change(what, name string, bytes int64) {
	r.add(r.group(what, false), name, bytes)
}

// lines says in a line for each reason what was left out, for people.
func (r *report) lines() []string {
	var lines []string
	for _, g := range r.groups {
		if g.quiet {
			continue
		}
		var names []string
		for i, item := range g.items {
			if i == namesShown {
				break
			}
			names = append(names, printable(item.name))
		}
		line := fmt.Sprintf("%s: %d, %s: %s", g.title, g.count, sizeWords(g.bytes), strings.Join(names, ", "))
		if more := g.count - len(names); more > 0 {
			line += fmt.Sprintf(" and %d more", more)
		}
		if g.kept {
			line += " (--keep brings it)"
		}
		lines = append(lines, line)
	}
	return lines
}

// write writes the whole report.
func (r *report) write(w io.Writer) error {
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
