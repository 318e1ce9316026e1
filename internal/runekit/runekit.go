// Package runekit is for people who write runes: it makes a skeleton of one, and tells
// what an image lacks for one.
//
// It applies nothing, and package runes says what is wrong with a rune by itself. The
// invariant: an image is only read; what is needed of it is copied to a temporary
// directory, and removed.
package runekit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"viver.lan/internal/hosttool"
	"viver.lan/internal/initsystem"
	"viver.lan/internal/manifest"
	"viver.lan/internal/rootpath"
	"viver.lan/internal/runes"
	"viver.lan/internal/squashmap"
)

// CheckAlone looks at a bundle without any image: whether its templates can be rendered.
func CheckAlone(b runes.Bundle) (r runes.Report, err error) {
	dir, err := os.MkdirTemp("", "viver-rune.*")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r, err = b.Check(runes.Target{Root: dir}, exampleFacts(b))
	return runes.Report{Errors: r.Errors}, err // the rest is about an image
}

// CheckImage says what would become of a bundle on a machine with an image, given as its
// directory.
func CheckImage(ctx context.Context, image string, b runes.Bundle) (r runes.Report, err error) {
	root := filepath.Join(image, manifest.Root)
	names, err := list(root)
	if err != nil {
		return r, fmt.Errorf("image %s: %w", image, err)
	}
	dir, err := os.MkdirTemp("", "viver-rune.*")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := names.copy(ctx, root, dir, b); err != nil {
		return r, fmt.Errorf("image %s: %w", image, err)
	}
	facts := exampleFacts(b)
	facts.Init = string(initsystem.Of(dir, initPath))
	return b.Check(runes.Target{Root: dir}, facts)
}

// listing is what an image's root has, by absolute path.
type listing map[string]squashmap.Entry

func list(root string) (listing, error) {
	f, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	entries, err := squashmap.List(f, fi.Size())
	if err != nil {
		return nil, err
	}
	names := make(listing, len(entries))
	for _, e := range entries {
		names["/"+e.Path] = e
	}
	return names, nil
}

// copy makes in dir what a bundle looks at, with the links that lead there.
func (l listing) copy(ctx context.Context, root, dir string, b runes.Bundle) error {
	out, err := os.OpenRoot(dir) // what a link's name says is a stranger's
	if err != nil {
		return err
	}
	defer out.Close()
	var files []string
	links := make(map[string]string)
	for _, p := range append(b.Probes(), l.always()...) {
		resolved, err := rootpath.Resolve(p, func(name string) (string, error) {
			e, ok := l[name]
			if !ok || e.Kind != squashmap.Link {
				return "", fs.ErrNotExist
			}
			links[name] = e.Target
			return e.Target, nil
		})
		if err != nil {
			continue // a loop of links: it leads nowhere on a machine, too
		}
		switch e, ok := l[resolved]; {
		case ok && e.Kind == squashmap.Dir:
			err = out.MkdirAll(e.Path, 0o755)
		case ok && e.Kind == squashmap.Regular && !slices.Contains(files, e.Path):
			files = append(files, e.Path)
		}
		if err != nil {
			return err
		}
	}
	if len(files) > 0 {
		args := append([]string{"-quiet", "-no-progress", "-no-xattrs", "-no-wildcards", "-force", "-dest", dir, root}, files...)
		if err := hosttool.Run(ctx, nil, "unsquashfs", args...); err != nil {
			return err
		}
	}
	for name, target := range links {
		if err := out.MkdirAll(path.Dir("./"+name[1:]), 0o755); err != nil {
			return err
		}
		if err := out.Symlink(target, name[1:]); err != nil {
			return err
		}
	}
	return nil
}

// initPath is where every distribution has its init.
const initPath = "/sbin/init"

// always are the files that say what distribution and init it is and which kernel modules
// it has.
func (l listing) always() []string {
	paths := []string{"/etc/os-release", "/usr/lib/os-release", initPath, "/etc/inittab"}
	for name := range l {
		if base := path.Base(name); (base == "modules.dep" || base == "modules.builtin") && strings.HasSuffix(path.Dir(path.Dir(name)), "/lib/modules") {
			paths = append(paths, "/lib/modules/"+path.Base(path.Dir(name))+"/"+base)
		}
	}
	return paths
}
