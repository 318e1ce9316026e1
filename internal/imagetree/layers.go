package imagetree

import (
	"archive/tar"
	"context"
	"fmt"
	"path"
	"strings"

	"viver.lan/internal/exclude"
)

// Names by which a layer takes away what lower ones have (OCI image specification,
// "Representing Changes").
const (
	whiteoutPrefix = ".wh."
	opaqueWhiteout = ".wh..wh..opq"
)

// layer is a tar archive on its way over the layers below it.
type layer struct {
	tree *Tree
	// links are the further names of the files below, by the first.
	links map[string][]string
}

// ScanLayers indexes the tree that the layers of a container image make, the lowest
// first. The archives have to stay open as long as the tree.
func ScanLayers(ctx context.Context, layers []Archive, choice *exclude.Choice) (*Tree, error) {
	return scan(choice, func(t *Tree) error {
		for _, a := range layers {
			if err := t.addLayer(ctx, a); err != nil {
				return fmt.Errorf("%s: %w", a.Name, err)
			}
		}
		return nil
	})
}

// addLayer takes away first: what a layer removes is of those below, wherever in the
// archive it says so.
func (t *Tree) addLayer(ctx context.Context, a Archive) error {
	l := &layer{tree: t, links: make(map[string][]string)}
	for name, e := range t.entries {
		if e.Header.Typeflag == tar.TypeLink {
			l.links[e.Header.Linkname] = append(l.links[e.Header.Linkname], name)
		}
	}
	err := eachMember(ctx, a, func(m member) {
		dir, base := path.Split(exclude.Clean(m.header.Name))
		if hidden, ok := strings.CutPrefix(base, whiteoutPrefix); ok && checkName(path.Clean(dir)) == nil {
			l.takeAway(l.place(path.Join(dir, "x")), base == opaqueWhiteout, hidden)
		}
	})
	if err != nil {
		return err
	}
	return eachMember(ctx, a, func(m member) {
		if !strings.HasPrefix(path.Base(exclude.Clean(m.header.Name)), whiteoutPrefix) {
			t.addTar(m, l)
		}
	})
}

// place is where a name of the layer leads in the tree: directories on its way may be
// links by now.
func (l *layer) place(name string) string {
	name = exclude.Clean(name)
	dir, err := l.tree.resolve(path.Dir(name))
	if name == "." || err != nil {
		return name
	}
	return path.Join(dir, path.Base(name))
}

// takeAway obeys a whiteout beside a file: of one name, or of all in the directory.
func (l *layer) takeAway(beside string, all bool, name string) {
	dir := path.Dir(beside)
	switch {
	case all:
		for _, child := range append([]string(nil), l.tree.children[dir]...) {
			l.remove(path.Join(dir, child))
		}
	case name != "" && name != "." && name != "..":
		l.remove(path.Join(dir, name))
	}
}

// remove takes a file out of the tree, or a directory with all it holds. A file that has
// further names elsewhere stays under those.
func (l *layer) remove(name string) {
	if l.tree.entries[name] == nil {
		return
	}
	l.handOn(name)
	l.tree.prune(name)
}

// handOn gives what a file holds to the first of its further names.
func (l *layer) handOn(name string) {
	for _, child := range l.tree.children[name] {
		l.handOn(path.Join(name, child))
	}
	var heir string
	for _, link := range l.links[name] {
		e := l.tree.entries[link]
		if e == nil || e.Header.Typeflag != tar.TypeLink || e.Header.Linkname != name {
			continue // it was replaced itself
		}
		if heir != "" {
			e.Header.Linkname = heir
			l.links[heir] = append(l.links[heir], link)
			continue
		}
		heir = link
		file := *l.tree.entries[name]
		file.Header.Name = heir
		l.tree.entries[heir] = &file
	}
}

// put adds a file of the layer. Only a directory over a directory leaves what is there.
func (l *layer) put(name string, e *Entry) {
	old := l.tree.entries[name]
	if e.Header.Typeflag == tar.TypeLink {
		if target := l.tree.entries[e.Header.Linkname]; target != nil && target.Header.Typeflag == tar.TypeLink {
			e.Header.Linkname = target.Header.Linkname
		}
	}
	if old != nil && name != "." && !(old.Header.Typeflag == tar.TypeDir && e.Header.Typeflag == tar.TypeDir) {
		l.remove(name)
	}
	l.tree.add(name, e)
}
