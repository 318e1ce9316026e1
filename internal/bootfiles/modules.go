package bootfiles

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"viver.lan/internal/decompress"
	"viver.lan/kernelconfig"
)

// moduleIndex is what depmod(8) wrote about a kernel's modules.
type moduleIndex struct {
	dir     string              // where the Linux has them
	home    string              // where an initramfs has them
	deps    map[string][]string // file below dir -> files it needs
	order   []string            // files in the order of modules.dep
	file    map[string]string   // module name -> file below dir
	builtin map[string]bool     // module name
	soft    map[string][]string // module name -> names or aliases of soft dependencies
	aliases []alias
}

type alias struct{ pattern, module string }

// moduleName turns kernel/fs/nls/nls-utf8.ko.xz into nls_utf8.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// readModuleIndex reads the tables of a kernel. A missing modules.dep is an error,
// the other tables may be absent.
func readModuleIndex(linux fs.FS, k Kernel) (*moduleIndex, error) {
	x := &moduleIndex{
		dir:     k.Modules,
		home:    "lib/modules/" + k.Release,
		deps:    make(map[string][]string),
		file:    make(map[string]string),
		builtin: make(map[string]bool),
		soft:    make(map[string][]string),
	}
	dep, err := fs.ReadFile(linux, x.dir+"/modules.dep")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(dep)) {
		file, needs, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		x.order = append(x.order, file)
		x.deps[file] = strings.Fields(needs)
		x.file[moduleName(file)] = file
	}
	for name, parse := range map[string]func(words []string){
		"modules.builtin": func(words []string) { x.builtin[moduleName(words[0])] = true },
		"modules.softdep": x.parseSoftdep,
		"modules.alias": func(words []string) {
			if len(words) == 3 && words[0] == "alias" {
				x.aliases = append(x.aliases, alias{words[1], words[2]})
			}
		},
	} {
		data, err := optional(linux, x.dir+"/"+name)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(data)) {
			if words := strings.Fields(line); len(words) > 0 {
				parse(words)
			}
		}
	}
	return x, nil
}

// parseSoftdep reads a line of modules.softdep(5).
func (x *moduleIndex) parseSoftdep(words []string) {
	if len(words) < 3 || words[0] != "softdep" {
		return
	}
	for _, name := range words[2:] {
		if name != "pre:" && name != "post:" {
			x.soft[words[1]] = append(x.soft[words[1]], name)
		}
	}
}

// optional reads a file that may be absent.
func optional(linux fs.FS, name string) ([]byte, error) {
	data, err := fs.ReadFile(linux, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// has reports whether the kernel can do what the module does.
func (x *moduleIndex) has(module string) bool {
	return x.builtin[module] || x.file[module] != ""
}

// split returns the files of all modules in groups and of everything they depend on,
// in the order of modules.dep: those that each machine needs before it has a network,
// and what both of the others depend on; those for network cards; the late ones.
func (x *moduleIndex) split(groups []kernelconfig.Group) (early, forCards, late []string) {
	early = x.choose(only(groups, func(g kernelconfig.Group) bool { return !g.Late && !g.NIC }))
	forCards = x.choose(only(groups, isNIC))
	late = x.choose(only(groups, func(g kernelconfig.Group) bool { return g.Late }))
	for _, file := range forCards {
		if slices.Contains(late, file) {
			early = append(early, file)
		}
	}
	isEarly := func(file string) bool { return slices.Contains(early, file) }
	forCards, late = slices.DeleteFunc(forCards, isEarly), slices.DeleteFunc(late, isEarly)
	return x.ordered(early), forCards, late
}

// only returns those of the groups for which is holds.
func only(groups []kernelconfig.Group, is func(kernelconfig.Group) bool) []kernelconfig.Group {
	return slices.DeleteFunc(slices.Clone(groups), func(g kernelconfig.Group) bool { return !is(g) })
}

func isNIC(g kernelconfig.Group) bool { return g.NIC }

// choose returns the files of all modules in groups and of everything they
// depend on, in the order of modules.dep.
func (x *moduleIndex) choose(groups []kernelconfig.Group) []string {
	chosen := make(map[string]bool)
	for _, g := range groups {
		for _, m := range g.Modules {
			x.add(m, chosen)
		}
		for _, file := range x.order {
			in := func(dir string) bool { return strings.HasPrefix(file, "kernel/"+dir+"/") }
			if slices.ContainsFunc(g.Dirs, in) && !x.dependsOn(file, g.Without) {
				x.add(moduleName(file), chosen)
			}
		}
	}
	return x.ordered(slices.Collect(maps.Keys(chosen)))
}

// dependsOn reports whether a module needs one of others, of which modules.dep lists also
// those that it needs by way of others.
func (x *moduleIndex) dependsOn(file string, others []string) bool {
	return slices.ContainsFunc(x.deps[file], func(need string) bool { return slices.Contains(others, moduleName(need)) })
}

// ordered returns files in the order of modules.dep, each once.
func (x *moduleIndex) ordered(files []string) []string {
	return slices.DeleteFunc(slices.Clone(x.order), func(file string) bool { return !slices.Contains(files, file) })
}

// add adds a module, what it depends on and its soft dependencies.
func (x *moduleIndex) add(module string, chosen map[string]bool) {
	file := x.file[strings.ReplaceAll(module, "-", "_")]
	if file == "" || chosen[file] {
		return
	}
	chosen[file] = true
	for _, need := range x.deps[file] {
		x.add(moduleName(need), chosen)
	}
	for _, name := range x.soft[moduleName(file)] {
		x.add(name, chosen)
		for _, a := range x.aliases {
			if ok, _ := path.Match(a.pattern, name); ok {
				x.add(a.module, chosen)
			}
		}
	}
}

// table returns the named depmod table with only the lines about the chosen
// files; what it gives of a compressed module is its name in the initramfs.
func (x *moduleIndex) table(name string, data []byte, chosen []string) []byte {
	in := make(map[string]bool, len(chosen))
	for _, file := range chosen {
		in[file] = true
		in[moduleName(file)] = true
	}
	var out bytes.Buffer
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		f := strings.Fields(line)
		keep := strings.HasPrefix(line, "#")
		switch {
		case keep || len(f) == 0:
		case name == "modules.dep":
			file := strings.TrimSuffix(f[0], ":")
			keep = in[file]
			line = decompressedName(file) + ":"
			for _, need := range f[1:] {
				line += " " + decompressedName(need)
			}
		case name == "modules.order":
			keep, line = in[f[0]], decompressedName(f[0])
		case name == "modules.alias":
			keep = in[f[len(f)-1]]
		case name == "modules.softdep":
			keep = len(f) > 1 && in[strings.ReplaceAll(f[1], "-", "_")]
		case name == "modules.devname":
			keep = in[f[0]]
		default:
			keep = true // modules.builtin and its relatives speak of the kernel itself
		}
		if keep {
			fmt.Fprintln(&out, line)
		}
	}
	return out.Bytes()
}

// decompressedName is a module's file name once it is decompressed.
func decompressedName(file string) string {
	if i := strings.LastIndex(file, ".ko."); i >= 0 && slices.Contains(decompress.Endings, file[i+3:]) {
		return file[:i+3]
	}
	return file
}
