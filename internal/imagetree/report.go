package imagetree

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"

	"viver.lan/internal/bytesize"
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
	// FstabLine is for what belongs to one machine in it.
	FstabLine = "lines of fstab for the disks of one machine, which became comments"
	// Secret is for what stays, since nobody could log in or reach a network without it.
	Secret = "secrets in the image, which everybody on its network can read"
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

// What one can do about a difference.
const (
	hintKeep    = "--keep brings it"
	hintExclude = "--exclude leaves it out"
)

// Report collects what an image has otherwise than its source, by reason.
type Report struct {
	Differences []*Difference `json:"differences"`

	mu    sync.Mutex // guards all of it while it is collected
	index map[string]*Difference
	items int
}

// Difference is everything that has one reason.
type Difference struct {
	// Reason begins with what happened to the files.
	Reason string `json:"reason"`
	// Hint is what one can do about it, "" for nothing.
	Hint string `json:"hint,omitempty"`
	// Quiet is what nobody asks for: it is not shown while an image is built.
	Quiet bool  `json:"quiet,omitempty"`
	Count int   `json:"count"`
	Bytes int64 `json:"bytes"`
	// Files are those with their names: Count may be more.
	Files []*File `json:"files"`
}

// File is one file, or a directory with all it holds. Of what changed in it the name
// says more, behind a colon.
type File struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

// NewReport returns an empty report.
func NewReport() *Report { return &Report{index: make(map[string]*Difference)} }

// ParseReport reads a report that was written as JSON.
func ParseReport(data []byte) (*Report, error) {
	r := NewReport()
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("a report of an image: %w", err)
	}
	r.Differences = slices.DeleteFunc(r.Differences, func(d *Difference) bool { return d == nil })
	for _, d := range r.Differences {
		d.Files = slices.DeleteFunc(d.Files, func(f *File) bool { return f == nil })
	}
	return r, nil
}

// About returns what a report has of some files: of themselves, of what lies in them and
// of the directories that they lie in.
func (r *Report) About(names ...string) *Report {
	about := NewReport()
	for _, d := range r.Differences {
		for _, f := range d.Files {
			if slices.ContainsFunc(names, func(name string) bool { return concerns(f.Name, exclude.Clean(name)) }) {
				about.add(about.group(d.Reason, d.Hint), f.Name, f.Bytes)
			}
		}
	}
	return about
}

// concerns reports whether what a report has under one name is about another.
func concerns(reported, name string) bool {
	below, ok := strings.CutPrefix(reported, name)
	if name == "." || ok && (below == "" || strings.ContainsRune("/: ", rune(below[0]))) {
		return true
	}
	return strings.HasPrefix(name, reported+"/")
}

func (r *Report) group(reason, hint string) *Difference {
	d := r.index[reason]
	if d == nil {
		d = &Difference{Reason: reason, Hint: hint}
		r.index[reason] = d
		r.Differences = append(r.Differences, d)
	}
	return d
}

// add notes one more file; the bytes that it has may be added later.
func (r *Report) add(d *Difference, name string, bytes int64) *File {
	f := &File{name, bytes}
	d.Count++
	d.Bytes += bytes
	if r.items++; r.items <= maxItems {
		d.Files = append(d.Files, f)
	}
	return f
}

// LeftOut notes a file that stays out by a rule. What it returns adds further bytes,
// of what a directory holds.
func (r *Report) LeftOut(rule *exclude.Rule, name string, bytes int64) func(int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.group("left out, "+rule.Reason, hint(rule))
	d.Quiet = rule.Uncounted
	if n := len(d.Files); n > 0 && d.Files[n-1].Name == name { // a tar has one member after another
		d.Files[n-1].Bytes += bytes
		d.Bytes += bytes
		return func(int64) {}
	}
	f := r.add(d, name, bytes)
	return func(n int64) {
		r.mu.Lock()
		defer r.mu.Unlock()
		f.Bytes += n
		d.Bytes += n
	}
}

// Emptied notes a file that is in the image without its content.
func (r *Report) Emptied(rule *exclude.Rule, name string, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(r.group("emptied, "+rule.Reason, hint(rule)), name, bytes)
}

// hint is what one can do about a rule.
func hint(rule *exclude.Rule) string {
	if rule.Always || rule == exclude.Chosen {
		return ""
	}
	return hintKeep
}

// Changed notes a file that is in the image, but not as it was, or not at all; what
// is one of the kinds above.
func (r *Report) Changed(what, name string, bytes int64) {
	advice := map[string]string{Secret: hintExclude, Permissive: hintKeep}[what]
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(r.group(what, advice), name, bytes)
}

// Lines has a line for each reason, for people.
func (r *Report) Lines() []string {
	var lines []string
	for _, d := range r.Differences {
		if d.Quiet {
			continue
		}
		var names []string
		for _, f := range d.Files[:min(len(d.Files), namesShown)] {
			names = append(names, printable(f.Name))
		}
		line := fmt.Sprintf("%s: %d, %s: %s", d.Reason, d.Count, bytesize.Words(d.Bytes), strings.Join(names, ", "))
		if more := d.Count - len(names); more > 0 {
			line += fmt.Sprintf(" and %d more", more)
		}
		if d.Hint != "" {
			line += " (" + d.Hint + ")"
		}
		lines = append(lines, line)
	}
	return lines
}

// WriteJSON writes the whole report for ParseReport.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

// Write writes the whole report for people: each file with its size and the reason.
func (r *Report) Write(w io.Writer) error {
	for _, d := range r.Differences {
		advice := ""
		if d.Hint != "" {
			advice = " (" + d.Hint + ")"
		}
		if _, err := fmt.Fprintf(w, "# %s: %d, %d bytes%s\n", d.Reason, d.Count, d.Bytes, advice); err != nil {
			return err
		}
		for _, f := range d.Files {
			if _, err := fmt.Fprintf(w, "%d\t%s\n", f.Bytes, printable(f.Name)); err != nil {
				return err
			}
		}
		if more := d.Count - len(d.Files); more > 0 {
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
