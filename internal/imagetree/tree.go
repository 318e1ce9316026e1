// Package imagetree holds an installed Linux as an index: every file's name and
// attributes in memory, contents read when they are asked for.
//
// It reads a directory or a tar archive and never writes to it; both give the same
// Tree. What stays out of an image, by package exclude, is not in the tree, and
// what a squashfs cannot hold is brought within that; both are in its Report. A tree is
// an fs.FS, for those who look for single files, and is walked by whoever wants
// all of it.
//
// While nobody changes it, several goroutines may read it, and report.
//
// The invariant: no name leads out of the source, whatever becomes of the source
// while it is read, and no right gets wider.
package imagetree

import (
	"archive/tar"
	"bytes"
	"path"
	"slices"
	"time"

	"viver.lan/internal/exclude"
)

// Tree is an installed Linux. Names in it are those of package exclude.
type Tree struct {
	// Rules say what stays out.
	Rules *exclude.Rules
	// Report collects what an image of the tree lacks of the source.
	Report *Report

	entries  map[string]*Entry
	children map[string][]string // directory -> sorted base names
	excluded map[string]*Entry   // files that stay out, which hard links may still need
	first    []string            // what Walk begins with
	close    func() error
}

// Entry is one file of a tree.
type Entry struct {
	// Header has its name and attributes, the extended ones as pax records.
	Header tar.Header
	// Open opens a regular file; nil for everything else.
	Open func() (*Content, error)
	// Stored is what the file takes in the source, in bytes: without its holes.
	Stored int64
}

func newTree(rules *exclude.Rules) *Tree {
	return &Tree{
		Rules:    rules,
		Report:   NewReport(),
		entries:  make(map[string]*Entry),
		children: make(map[string][]string),
		excluded: make(map[string]*Entry),
		close:    func() error { return nil },
	}
}

// Close releases the source.
func (t *Tree) Close() error { return t.close() }

// add stores an entry; a later one of the same name replaces it, as in tar. A
// tar may also name a file and not its directory, which then is a plain one.
func (t *Tree) add(name string, e *Entry) {
	if _, known := t.entries[name]; !known && name != "." {
		dir := path.Dir(name)
		if t.entries[dir] == nil {
			t.add(dir, plainDir(dir))
		}
		t.children[dir] = append(t.children[dir], path.Base(name))
	}
	t.entries[name] = e
}

func plainDir(name string) *Entry {
	return &Entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, ModTime: time.Unix(0, 0)}}
}

// remove takes a file, or a directory with all it holds, out of the tree.
func (t *Tree) remove(name string) {
	for _, child := range t.children[name] {
		t.remove(path.Join(name, child))
	}
	delete(t.children, name)
	if e := t.entries[name]; e != nil && e.Open != nil {
		t.excluded[name] = e
	}
	delete(t.entries, name)
}

// prune removes name and forgets it in its directory.
func (t *Tree) prune(name string) {
	t.remove(name)
	dir := path.Dir(name)
	t.children[dir] = slices.DeleteFunc(slices.Clone(t.children[dir]), func(child string) bool { return child == path.Base(name) })
}

// Target returns the file that a hard link stands for, which may stay out itself;
// nil when the source has no such file.
func (t *Tree) Target(link *Entry) *Entry {
	if e := t.entries[link.Header.Linkname]; e != nil {
		return e
	}
	return t.excluded[link.Header.Linkname]
}

// Add puts a file of root's into a tree that was scanned, in place of one of that
// name.
func (t *Tree) Add(name string, data []byte, modTime time.Time) {
	if dir, err := t.resolve(path.Dir(name)); err == nil {
		name = path.Join(dir, path.Base(name))
	}
	h := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(data)), ModTime: clampTime(modTime)}
	t.insert(name, &Entry{Header: h, Open: func() (*Content, error) { return Stable(h, bytes.NewReader(data), nil), nil }})
}

// AddLink puts a symbolic link of root's into a tree that was scanned.
func (t *Tree) AddLink(name, target string) {
	if dir, err := t.resolve(path.Dir(name)); err == nil {
		name = path.Join(dir, path.Base(name))
	}
	t.insert(name, &Entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777, ModTime: time.Unix(0, 0)}})
}

// insert adds an entry in its place among those of its directory.
func (t *Tree) insert(name string, e *Entry) {
	t.add(name, e)
	for name != "." {
		name = path.Dir(name)
		slices.Sort(t.children[name])
	}
}

// LeaveOut takes what a name leads to, and if that is a directory all it holds, out
// of the tree by a rule, unless it was asked for. A name that leads nowhere is no error.
func (t *Tree) LeaveOut(rule *exclude.Rule, name string) {
	if real, err := t.resolve(name); err == nil {
		t.exclude(rule, real)
	}
}

// Size is the sum of all contents in bytes.
func (t *Tree) Size() int64 {
	var n int64
	for _, e := range t.entries {
		if e.Open != nil {
			n += e.Header.Size
		}
	}
	return n
}

// Latest is the newest modification time in the tree.
func (t *Tree) Latest() time.Time {
	var latest time.Time
	for _, e := range t.entries {
		if e.Header.ModTime.After(latest) {
			latest = e.Header.ModTime
		}
	}
	return latest
}

// seal brings the index in order once all entries are known, and takes out of
// it what only the whole of it shows.
func (t *Tree) seal() error {
	if t.entries["."] == nil {
		t.add(".", plainDir("."))
	}
	for dir, children := range t.children {
		slices.Sort(children)
		if e := t.entries[dir]; e != nil && e.Header.Typeflag != tar.TypeDir {
			// An archive may say so of what is a link by then, or a file.
			t.Report.Changed(Unsupported, dir+": what is in it, since it is no directory", 0)
			for _, child := range children {
				t.remove(path.Join(dir, child))
			}
			delete(t.children, dir)
		}
	}
	t.excludeOutputs()
	return t.excludeSwap()
}

// First has Walk begin with the named files, in that order. It returns how many of
// them there are; names that lead to no file are ignored.
func (t *Tree) First(names []string) (found int) {
	t.first = nil
	for _, name := range names {
		real, err := t.resolve(name)
		if err != nil || t.entries[real] == nil || t.entries[real].Header.Typeflag == tar.TypeDir {
			continue
		}
		t.first = append(t.first, real)
	}
	return len(t.first)
}

// Walk calls f for every file once, a directory before what it holds, and ends with
// the first error. It goes in name order, but for those that are to be first.
func (t *Tree) Walk(f func(name string, e *Entry) error) error {
	w := t.walk(f)
	for _, name := range t.first {
		if err := w.way(name); err != nil {
			return err
		}
	}
	w.inOrder = true
	return w.all(".")
}

type walk struct {
	tree    *Tree
	visited map[string]bool // out of order
	inOrder bool
	f       func(name string, e *Entry) error
}

func (t *Tree) walk(f func(name string, e *Entry) error) *walk {
	return &walk{tree: t, visited: make(map[string]bool), f: f}
}

func (w *walk) visit(name string) error {
	e := w.tree.entries[name]
	if e == nil || w.visited[name] {
		return nil
	}
	if !w.inOrder {
		w.visited[name] = true
	}
	return w.f(name, e)
}

// way visits a file behind the directories that lead to it.
func (w *walk) way(name string) error {
	if name != "." {
		if err := w.way(path.Dir(name)); err != nil {
			return err
		}
	}
	return w.visit(name)
}

// all visits a file and what it holds.
func (w *walk) all(name string) error {
	if err := w.visit(name); err != nil {
		return err
	}
	for _, child := range w.tree.children[name] {
		if err := w.all(path.Join(name, child)); err != nil {
			return err
		}
	}
	return nil
}
