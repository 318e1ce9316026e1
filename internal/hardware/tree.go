package hardware

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Tree is the directory of one kernel's modules with depmod's indexes read.
// The zero value is a kernel that has everything built in.
type Tree struct {
	dir     string
	release string
	modules map[string]module
	soft    map[string]softdep
	builtin map[string]bool
	aliases *Aliases
	conf    conf
}

type module struct {
	file string   // below dir
	deps []string // names, in the order of modules.dep
}

type softdep struct{ pre, post []string }

// ErrNoModule is returned when neither a file nor an alias nor the kernel
// itself knows a name.
var ErrNoModule = errors.New("no such module")

// OpenTree reads the indexes of the kernel called release below root, in
// lib/modules or usr/lib/modules, and modprobe.d(5). modules.dep must be there, all
// others may be absent.
func OpenTree(root, release string) (*Tree, error) {
	dir := treeDir(root, release)
	t := &Tree{dir: dir, release: release}
	text := make(map[string]string)
	for _, name := range []string{"modules.dep", "modules.alias", "modules.softdep", "modules.builtin", "modules.builtin.modinfo"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && (name == "modules.dep" || !errors.Is(err, fs.ErrNotExist)) {
			return nil, fmt.Errorf("modules of kernel %s: %w (depmod writes it)", release, err)
		}
		text[name] = string(data)
	}
	t.modules = parseDeps(text["modules.dep"])
	t.soft = parseSoftdeps(text["modules.softdep"])
	t.builtin = parseBuiltin(text["modules.builtin"], text["modules.builtin.modinfo"])
	t.aliases = ParseAliases(text["modules.alias"])
	t.conf = newConf()
	t.readConf(root)
	return t, nil
}

// FindDriver returns the first module of the kernel called release below root that
// claims a device, "" when none does. It reads one table and keeps nothing of it: of a
// root that comes over a network, OpenTree would read too much for one device.
func FindDriver(root, release, modalias string) (string, error) {
	f, err := os.Open(filepath.Join(treeDir(root, release), "modules.alias"))
	if err != nil {
		return "", fmt.Errorf("modules of kernel %s: %w (depmod writes it)", release, err)
	}
	defer f.Close()
	bus, _, _ := strings.Cut(modalias, ":")
	ofBus := []byte("alias " + bus + ":")
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if !bytes.HasPrefix(lines.Bytes(), ofBus) {
			continue
		}
		if found := ParseAliases(lines.Text()).Match(modalias); len(found) > 0 {
			return found[0], nil
		}
	}
	return "", lines.Err()
}

// treeDir is where the modules of a kernel are below root.
func treeDir(root, release string) string {
	dir := filepath.Join(root, "lib/modules", release)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		dir = filepath.Join(root, "usr/lib/modules", release)
	}
	return dir
}

// Release returns the kernel release, as uname -r prints it.
func (t *Tree) Release() string { return t.release }

// Match returns the modules that claim a device with this modalias.
func (t *Tree) Match(modalias string) []string { return t.aliases.Match(modalias) }

// lookup turns what a person or a softdep calls a module into module names. An
// empty answer with no error means that the kernel has it built in.
func (t *Tree) lookup(name string) ([]string, error) {
	name = underscores(name)
	if _, ok := t.modules[name]; ok {
		return []string{name}, nil
	}
	if names := t.aliases.Match(name); len(names) > 0 {
		return names, nil
	}
	if t.builtin[name] {
		return nil, nil
	}
	return nil, fmt.Errorf("%s: %w in kernel %s", name, ErrNoModule, t.release)
}

// need is one entry of a load order.
type need struct {
	name string
	hard bool // what comes after it cannot do without
}

// order returns what must be loaded for the module called name, itself
// included, each before the ones that need it.
func (t *Tree) order(name string) []need {
	var out []need
	visiting := make(map[string]bool)
	var visit func(name string, hard bool)
	visit = func(name string, hard bool) {
		if visiting[name] {
			// Reached again on another way: keep its place, but a hard need
			// anywhere makes it a hard need.
			for i := range out {
				out[i].hard = out[i].hard || hard && out[i].name == name
			}
			return
		}
		visiting[name] = true
		soft := func(names []string) {
			for _, alias := range names {
				found, _ := t.lookup(alias) // a soft dependency may be absent
				for _, n := range found {
					visit(n, false)
				}
			}
		}
		// depmod writes the closure with the deepest dependency last.
		for _, dep := range slices.Backward(t.modules[name].deps) {
			visit(dep, hard)
		}
		soft(t.soft[name].pre)
		out = append(out, need{name, hard})
		soft(t.soft[name].post)
	}
	visit(name, true)
	return out
}

// parseDeps reads modules.dep: "FILE: FILE FILE…", all relative to the tree.
func parseDeps(text string) map[string]module {
	modules := make(map[string]module)
	for line := range strings.Lines(text) {
		file, deps, ok := strings.Cut(line, ":")
		file = strings.TrimSpace(file)
		if !ok || file == "" {
			continue
		}
		m := module{file: file}
		for _, dep := range strings.Fields(deps) {
			m.deps = append(m.deps, moduleName(dep))
		}
		modules[moduleName(file)] = m
	}
	return modules
}

// parseSoftdeps reads modules.softdep: "softdep NAME pre: A B post: C".
func parseSoftdeps(text string) map[string]softdep {
	soft := make(map[string]softdep)
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 3 || words[0] != "softdep" {
			continue
		}
		name := underscores(words[1])
		s := soft[name]
		var into *[]string
		for _, w := range words[2:] {
			switch {
			case w == "pre:":
				into = &s.pre
			case w == "post:":
				into = &s.post
			case into != nil:
				*into = append(*into, underscores(w))
			}
		}
		soft[name] = s
	}
	return soft
}

// parseBuiltin reads the names of what is built into the kernel, and their
// aliases from modinfo strings "NAME.alias=ALIAS" that end in a zero byte.
func parseBuiltin(files, modinfo string) map[string]bool {
	builtin := make(map[string]bool)
	for _, file := range strings.Fields(files) {
		builtin[moduleName(file)] = true
	}
	for info := range strings.SplitSeq(modinfo, "\x00") {
		key, value, _ := strings.Cut(info, "=")
		if strings.HasSuffix(key, ".alias") && !strings.ContainsAny(value, "*?[") {
			builtin[underscores(value)] = true
		}
	}
	return builtin
}

// moduleName returns the name that the kernel gives the module in file.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return underscores(name)
}
