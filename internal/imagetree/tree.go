// Package imagetree holds an installed Linux as an index: every file's name and
// attributes in memory, contents read when they are asked for.
//
// It reads a directory or a tar archive and never writes to it; both give the same
// Tree. What stays out of an image, by package exclude, is not in the tree, and
// what a squashfs cannot hold is brought within that; both are in its Report. A tree is
// an fs.FS, for those who look for single files, and is walked by whoever wants
// all of it.
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
	t.add(name, &Entry{Header: h, Open: func() (*Content, error) { return Stable(h, bytes.NewReader(data), nil), nil }})
	for name != "." {
		name = path.Dir(name)
		slices.Sort(t.children[name])
	}
}

// Remove takes what a name leads to, and if that is a directory all it holds, out
// of the tree. A name that leads nowhere is no error.
func (t *Tree) Remove(name string) {
	if real, err := t.resolve(name); err == nil {
		t.prune(real)
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

// Walk calls f for every file, a directory before what it holds, in name order,
// and ends with the first error.
func (t *Tree) Walk(f func(name string, e *Entry) error) error { return t.walk(".", f) }

func (t *Tree) walk(dir string, f func(name string, e *Entry) error) error {
	if err := f(dir, t.entries[dir]); err != nil {
		return err
	}
	for _, child := range t.children[dir] {
		if err := t.walk(path.Join(dir, child), f); err != nil {
			return err
		}
	}
	return nil
}
