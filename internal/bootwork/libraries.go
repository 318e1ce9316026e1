package bootwork

import (
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// checkLibraries is for ldconfig.service: /etc/ld.so.cache has the libraries of the
// directories that ldconfig(8) reads, and no others. It compares names and not times:
// many a package changes such a directory without a library, after ldconfig has run.
func checkLibraries(tree fs.FS) error {
	data, err := fs.ReadFile(tree, "etc/ld.so.cache")
	if err != nil {
		return fmt.Errorf("there is no /etc/ld.so.cache")
	}
	cached, err := parseCache(data)
	if err != nil {
		return fmt.Errorf("/etc/ld.so.cache cannot be read: %w", err)
	}
	names := make(map[string]bool, len(cached))
	for _, l := range cached {
		if _, err := fs.Stat(tree, strings.TrimPrefix(l.path, "/")); err != nil {
			return fmt.Errorf("/etc/ld.so.cache has %s, which does not exist", l.path)
		}
		names[l.name] = true
	}
	for _, dir := range libraryDirs(tree) {
		entries, _ := fs.ReadDir(tree, dir) // ldconfig(8) ignores it too
		for _, e := range entries {
			if !isLibrary(e) {
				continue
			}
			file := path.Join(dir, e.Name())
			if name := soname(tree, file); name != "" && !names[name] {
				return fmt.Errorf("/etc/ld.so.cache lacks /%s", file)
			}
		}
	}
	return nil
}

// libraryDirs returns the directories that ldconfig(8) reads: those of ld.so.conf, and
// those that are built into it, which differ by distribution.
func libraryDirs(tree fs.FS) []string {
	dirs := configuredDirs(tree, "etc/ld.so.conf", 0)
	for _, dir := range []string{"lib", "usr/lib", "lib64", "usr/lib64"} {
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// maxInclude bounds how deep the files of ld.so.conf include each other.
const maxInclude = 4

// configuredDirs reads a file like ld.so.conf, and those that it includes.
func configuredDirs(tree fs.FS, name string, depth int) (dirs []string) {
	text, _ := fs.ReadFile(tree, name) // a tree need not have it
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || fields[0] == "hwcap":
		case fields[0] != "include":
			dir, _, _ := strings.Cut(fields[0], "=") // dir=TYPE, of old
			dirs = append(dirs, strings.Trim(dir, "/"))
		case depth < maxInclude:
			for _, pattern := range fields[1:] {
				if !strings.HasPrefix(pattern, "/") {
					pattern = path.Join(path.Dir(name), pattern)
				}
				files, _ := fs.Glob(tree, strings.TrimPrefix(pattern, "/")) // a bad pattern matches nothing there too
				for _, file := range files {
					dirs = append(dirs, configuredDirs(tree, file, depth+1)...)
				}
			}
		}
	}
	return dirs
}

// isLibrary reports whether ldconfig(8) looks into a file. Links are ignored: the
// file that one leads to has the name by which the loader asks.
func isLibrary(e fs.DirEntry) bool {
	name := e.Name()
	return e.Type().IsRegular() && strings.Contains(name, ".so") && (strings.HasPrefix(name, "lib") || strings.HasPrefix(name, "ld-")) &&
		!strings.HasSuffix(name, ".py") // what goes with a library for gdb
}

// soname returns the name by which programs ask for a library; "" for a file that is
// none, such as a linker's script, or one of another kind of machine.
func soname(tree fs.FS, name string) string {
	f, err := tree.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	r, ok := f.(io.ReaderAt)
	if !ok {
		return ""
	}
	library, err := elf.NewFile(r)
	if err != nil || library.Type != elf.ET_DYN || library.Machine != elf.EM_X86_64 && library.Machine != elf.EM_386 {
		return ""
	}
	if names, err := library.DynString(elf.DT_SONAME); err == nil && len(names) > 0 {
		return names[0]
	}
	return path.Base(name)
}
