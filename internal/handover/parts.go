package handover

import (
	"debug/elf"
	"iter"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"viver.lan/internal/rootpath"
)

// maxParts bounds the files of Parts; systemd has some thirty.
const maxParts = 64

// Parts goes through the files that the kernel and the dynamic loader are going to read
// when the init at that path inside root starts: itself, what interprets it, and the
// libraries that these need, the nearest first. Each is looked into when its turn is
// over. They are for reading ahead: a library that the loader finds elsewhere is
// missing, and so is what cannot be read.
func Parts(root, init string) iter.Seq[string] {
	return func(yield func(string) bool) {
		p := parts{root: root}
		p.add(init)
		for i := 0; i < min(len(p.files), maxParts) && yield(filepath.Join(root, p.files[i])); i++ {
			p.follow(p.files[i])
		}
	}
}

// parts are files inside root, links followed, each once.
type parts struct {
	root  string
	files []string
	// libraries is the directory of the loader, which has the system's libraries.
	libraries string
}

// add reports whether name is there, and notes it.
func (p *parts) add(name string) bool {
	inside, err := rootpath.In(p.root, name)
	if err != nil {
		return false
	}
	if info, err := os.Stat(filepath.Join(p.root, inside)); err != nil || !info.Mode().IsRegular() {
		return false
	}
	if !slices.Contains(p.files, inside) {
		p.files = append(p.files, inside)
	}
	return true
}

// follow adds what a file needs.
func (p *parts) follow(name string) {
	f, err := os.Open(filepath.Join(p.root, name))
	if err != nil {
		return
	}
	defer f.Close()
	loader, err := interpreter(f)
	if err != nil {
		return
	}
	if inside, err := rootpath.In(p.root, loader); loader != "" && err == nil && p.add(inside) {
		p.libraries = path.Dir(inside)
	}
	binary, err := elf.NewFile(f)
	if err != nil {
		return // a script
	}
	libraries, _ := binary.ImportedLibraries() // none in what is damaged
	dirs, _ := binary.DynString(elf.DT_RUNPATH)
	for _, library := range libraries {
		p.find(library, append(strings.Split(strings.Join(dirs, ":"), ":"), p.libraries))
	}
}

func (p *parts) find(library string, dirs []string) {
	for _, dir := range dirs {
		if path.IsAbs(dir) && p.add(path.Join(dir, library)) {
			return
		}
	}
}
