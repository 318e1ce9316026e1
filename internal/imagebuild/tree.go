package imagebuild

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"sort"
	"strings"
	"time"
)

// Tree is an installed Linux held as an index: every file's name and
// attributes in memory, contents read on demand. A directory and a tar archive
// give the same Tree.
type Tree struct {
	// Source is the directory or archive the tree was read from.
	Source  string
	entries map[string]*entry
	kids    map[string][]string // directory -> sorted base names
	hidden  map[string]*entry   // files left out, which hard links may still need
	rules   *rules
	report  *report
	notes   []string
	spool   string // directory for copies of what changes while it is read
	close   func() error
}

// entry is one file of a tree. Its name has no leading slash; the root is ".".
type entry struct {
	header tar.Header
	// open reads a regular file's content; nil for everything else.
	open func() (*content, error)
	// stored is what the file takes in the source, in bytes: without its holes.
	stored int64
}

func newTree(source string, rules *rules) *Tree {
	return &Tree{
		Source:  source,
		rules:   rules,
		report:  newReport(),
		entries: make(map[string]*entry),
		kids:    make(map[string][]string),
		hidden:  make(map[string]*entry),
		close:   func() error { return nil },
	}
}

// Close releases the source.
func (t *Tree) Close() error { return t.close() }

func (t *Tree) note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

// add stores an entry; a later one of the same name replaces it, as in tar. A
// tar may also name a file and not its directory, which then is a plain one.
func (t *Tree) add(name string, e *entry) {
	if _, known := t.entries[name]; !known && name != "." {
		dir := path.Dir(name)
		if t.entries[dir] == nil {
			t.add(dir, plainDir(dir))
		}
		t.kids[dir] = append(t.kids[dir], path.Base(name))
	}
	t.entries[name] = e
}

func plainDir(name string) *entry {
	return &entry{header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, ModTime: time.Unix(0, 0)}}
}

// remove takes a file, or a directory with all it holds, out of the tree.
func (t *Tree) remove(name string) {
	for _, kid := range t.kids[name] {
		t.remove(path.Join(name, kid))
	}
	delete(t.kids, name)
	if e := t.entries[name]; e != nil && e.open != nil {
		t.hidden[name] = e
	}
	delete(t.entries, name)
}

// prune removes name and forgets it in its directory.
func (t *Tree) prune(name string) {
	t.remove(name)
	dir := path.Dir(name)
	t.kids[dir] = slices.DeleteFunc(slices.Clone(t.kids[dir]), func(kid string) bool { return kid == path.Base(name) })
}

// target returns the file that a hard link stands for.
func (t *Tree) target(link *entry) *entry {
	if e := t.entries[clean(link.header.Linkname)]; e != nil {
		return e
	}
	return t.hidden[clean(link.header.Linkname)]
}

// seal brings the index in order once all entries are known, and takes out of
// it what only the whole of it shows.
func (t *Tree) seal() error {
	if t.entries["."] == nil {
		t.add(".", plainDir("."))
	}
	for dir, kids := range t.kids {
		sort.Strings(kids)
		if e := t.entries[dir]; e != nil && e.header.Typeflag != tar.TypeDir {
			// An archive may say so of what is a link by then, or a file.
			t.report.change(notHeld, dir+": what is in it, since it is no directory", 0)
			for _, kid := range kids {
				t.remove(path.Join(dir, kid))
			}
			delete(t.kids, dir)
		}
	}
	t.leaveOutputs()
	return t.leaveSwap()
}

// maxLinks bounds symbolic link chains, as the kernel does.
const maxLinks = 40

// resolve follows every symbolic link in name, seeing the tree's root as /.
func (t *Tree) resolve(name string) (string, error) {
	links := 0
	done, rest := ".", strings.Split(clean(name), "/")
	for len(rest) > 0 {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, part)
		e, ok := t.entries[next]
		if !ok {
			return "", &fs.PathError{Op: "open", Path: "/" + name, Err: fs.ErrNotExist}
		}
		if e.header.Typeflag != tar.TypeSymlink {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", &fs.PathError{Op: "open", Path: "/" + name, Err: errors.New("too many symbolic links")}
		}
		if strings.HasPrefix(e.header.Linkname, "/") {
			done = "."
		}
		rest = append(strings.Split(e.header.Linkname, "/"), rest...)
	}
	return done, nil
}

// lookup returns the entry that name leads to, through links of both kinds.
func (t *Tree) lookup(name string) (*entry, error) {
	real, err := t.resolve(name)
	if err != nil {
		return nil, err
	}
	e := t.entries[real]
	if e != nil && e.header.Typeflag == tar.TypeLink {
		e = t.target(e)
	}
	if e == nil {
		return nil, &fs.PathError{Op: "open", Path: "/" + name, Err: fs.ErrNotExist}
	}
	return e, nil
}

// content opens a regular file.
func (t *Tree) content(name string) (*content, error) {
	e, err := t.lookup(name)
	if err != nil {
		return nil, err
	}
	if e.open == nil {
		return nil, &fs.PathError{Op: "open", Path: "/" + name, Err: errors.New("not a regular file")}
	}
	return e.open()
}

// open opens a regular file to be read from its beginning.
func (t *Tree) open(name string) (io.ReadCloser, error) {
	c, err := t.content(name)
	if err != nil {
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{c.whole(), c}, nil
}

// maxRead bounds a file that is read into memory, in bytes.
const maxRead = 1 << 30

// readFile returns a regular file's content.
func (t *Tree) readFile(name string) ([]byte, error) {
	c, err := t.content(name)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if c.header.Size > maxRead {
		return nil, fmt.Errorf("read /%s: it has %d bytes", name, c.header.Size)
	}
	data, err := io.ReadAll(c.whole())
	if err != nil {
		return nil, fmt.Errorf("read /%s: %w", name, err)
	}
	return data, nil
}

// isFile reports whether name leads to a regular file.
func (t *Tree) isFile(name string) bool {
	e, err := t.lookup(name)
	return err == nil && e.open != nil
}

// list returns the base names in a directory, nil when there is none.
func (t *Tree) list(dir string) []string {
	real, err := t.resolve(dir)
	if err != nil {
		return nil
	}
	return t.kids[real]
}

// walk calls f for every entry below dir, parents first, in name order. f
// returning fs.SkipDir passes over a directory's content.
func (t *Tree) walk(dir string, f func(name string, e *entry) error) error {
	err := f(dir, t.entries[dir])
	if errors.Is(err, fs.SkipDir) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, kid := range t.kids[dir] {
		if err := t.walk(path.Join(dir, kid), f); err != nil {
			return err
		}
	}
	return nil
}

// clean turns "/usr/", "./usr" and "usr" into the index's "usr".
func clean(name string) string {
	name = path.Clean("/" + name)
	if name == "/" {
		return "."
	}
	return name[1:]
}
