package runes

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	template "github.com/DataDog/datadog-agent/pkg/template/text"
	"github.com/pelletier/go-toml/v2"
)

const (
	manifestName = "rune.toml"
	templateExt  = ".tmpl"
	defaultOrder = 50
	maxManifest  = 64 << 10
	maxTemplate  = 1 << 20
	maxPath      = 1024
)

// node is a file of a bundle's folder as it was read.
type node struct {
	exec bool   // the owner may execute it: the only bit of a mode that counts
	link string // target, when it is a symbolic link
	data []byte
}

// item is one path to lay.
type item struct {
	path string // absolute, in the root
	mode fs.FileMode
	data []byte
	tmpl *template.Template // rendered instead of data when set
	name *template.Template // rendered instead of path when set
	link string             // laid as a symbolic link when set
	when Conditions

	live  bool     // rendered again whenever a fact changes
	roles []string // laid while the node holds one of them, by @vrune
}

// runeTOML is the layout of rune.toml.
type runeTOML struct {
	Name        string            `toml:"name"`
	Description string            `toml:"description"`
	Order       int               `toml:"order"`
	Executable  []string          `toml:"executable"`
	Symlinks    map[string]string `toml:"symlinks"`
	When        Conditions        `toml:"when"`
	File        []fileTOML        `toml:"file"`
	Role        []roleTOML        `toml:"role"`
	Service     []serviceTOML     `toml:"service"`
	Settings    map[string]string `toml:"settings"`
}

type fileTOML struct {
	Path  string     `toml:"path"`
	Mode  string     `toml:"mode"`
	When  Conditions `toml:"when"`
	Roles []string   `toml:"roles"`
	Live  bool       `toml:"live"`
}

// newBundle makes a bundle of the files of one folder, keyed by their path in
// it.
func newBundle(folder string, tree map[string]node) (Bundle, error) {
	top, ok := tree[manifestName]
	if !ok {
		return Bundle{}, fmt.Errorf("no %s in it", manifestName)
	}
	if top.exec { // a file system without modes says "executable" of everything
		tree = maps.Clone(tree)
		for name, n := range tree {
			n.exec = false
			tree[name] = n
		}
	}
	m, err := parseManifest(top.data)
	if err != nil {
		return Bundle{}, fmt.Errorf("%s: %w", manifestName, err)
	}
	if err := m.check(folder); err != nil {
		return Bundle{}, fmt.Errorf("%s: %w", manifestName, err)
	}
	b := Bundle{
		Name: m.Name, Description: m.Description, Order: m.Order, when: m.When,
		hooks: make(map[Moment]hookProgram), tree: tree,
	}
	items := make(map[string]*item)
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		n := tree[name]
		dir, rest, _ := strings.Cut(name, "/")
		switch {
		case dir == "files" && rest != "":
			it, err := newItem(rest, n)
			if err != nil {
				return Bundle{}, fmt.Errorf("%s: %w", name, err)
			}
			if items[it.path] != nil {
				return Bundle{}, fmt.Errorf("%s is there twice, as it stands and as %s", it.path, templateExt)
			}
			items[it.path] = it
		case dir == "hooks" && rest != "":
			if !slices.Contains(Moments(), Moment(rest)) {
				return Bundle{}, fmt.Errorf("%s: no such moment; there are %s", name, momentNames())
			}
			if b.hooks[Moment(rest)], err = newHook(n); err != nil {
				return Bundle{}, fmt.Errorf("%s: %w", name, err)
			}
		case name == manifestName || rest == "" && strings.HasPrefix(strings.ToUpper(dir), "README"):
		default:
			return Bundle{}, fmt.Errorf("%s does not belong here; a rune holds %s, files/, hooks/ and a README", name, manifestName)
		}
	}
	if err := m.complete(&b, items); err != nil {
		return Bundle{}, fmt.Errorf("%s: %w", manifestName, err)
	}
	for _, p := range slices.Sorted(maps.Keys(items)) {
		b.items = append(b.items, *items[p])
	}
	return b, nil
}

func newItem(name string, n node) (*item, error) {
	it := &item{path: "/" + name, mode: 0o644, data: n.data, link: n.link}
	if n.exec {
		it.mode = 0o755
	}
	if n.link != "" || !strings.HasSuffix(name, templateExt) {
		return it, nil
	}
	it.path = strings.TrimSuffix(it.path, templateExt)
	if strings.HasSuffix(it.path, "/") {
		return nil, fmt.Errorf("a template needs a name before %s", templateExt)
	}
	if len(n.data) > maxTemplate {
		return nil, fmt.Errorf("a template of %d bytes; the limit is %d", len(n.data), maxTemplate)
	}
	var err error
	if it.tmpl, err = parseTemplate(it.path, text(n.data)); err != nil {
		return nil, err
	}
	if strings.Contains(it.path, "{{") {
		it.name, err = parseTemplate("name", it.path)
	}
	return it, err
}

// text is what a person typed, whichever editor was used: without the byte
// order mark and the carriage returns of other systems.
func text(data []byte) string {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	return string(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")))
}

func parseManifest(data []byte) (*runeTOML, error) {
	if len(data) > maxManifest {
		return nil, fmt.Errorf("%d bytes; the limit is %d", len(data), maxManifest)
	}
	m := &runeTOML{Order: defaultOrder}
	dec := toml.NewDecoder(strings.NewReader(text(data))).DisallowUnknownFields()
	err := dec.Decode(m)
	var unknown *toml.StrictMissingError
	var syntax *toml.DecodeError
	switch {
	case errors.As(err, &unknown) && len(unknown.Errors) > 0:
		line, _ := unknown.Errors[0].Position()
		return nil, fmt.Errorf("line %d: no such setting: %s", line, strings.Join(unknown.Errors[0].Key(), "."))
	case errors.As(err, &syntax):
		line, _ := syntax.Position()
		return nil, fmt.Errorf("line %d: %w", line, err)
	case err != nil:
		return nil, err
	}
	return m, nil
}

func (m *runeTOML) check(folder string) error {
	switch {
	case !validName(m.Name):
		return fmt.Errorf("name %q: want up to 63 small letters, digits and dashes", m.Name)
	case m.Name != folder:
		return fmt.Errorf("name %q, but the folder is called %q", m.Name, folder)
	case m.Order < 0 || m.Order > 99:
		return fmt.Errorf("order %d: want 0 to 99", m.Order)
	}
	if err := m.When.check(); err != nil {
		return fmt.Errorf("when: %w", err)
	}
	return nil
}

// complete adds what rune.toml says about paths to the items found.
func (m *runeTOML) complete(b *Bundle, items map[string]*item) error {
	if err := m.completeLive(b); err != nil {
		return err
	}
	for name, link := range m.Symlinks {
		p, err := rootPath(name)
		if err != nil {
			return fmt.Errorf("symlinks: %w", err)
		}
		if link == "" || len(link) > maxPath || strings.ContainsRune(link, 0) {
			return fmt.Errorf("symlinks: %s leads to %q", name, link)
		}
		if items[p] != nil {
			return fmt.Errorf("symlinks: %s is in files/ too", p)
		}
		items[p] = &item{path: p, link: link}
	}
	for _, name := range m.Executable {
		p, err := rootPath(name)
		if err != nil {
			return fmt.Errorf("executable: %w", err)
		}
		it := items[p]
		if it == nil || it.link != "" {
			return fmt.Errorf("executable: no file %s in files/", p)
		}
		it.mode = 0o755
	}
	for _, f := range m.File {
		if err := f.complete(b, items); err != nil {
			return fmt.Errorf("file %s: %w", f.Path, err)
		}
	}
	return nil
}

func (f fileTOML) complete(b *Bundle, items map[string]*item) error {
	p, err := rootPath(f.Path)
	if err != nil {
		return err
	}
	if err := f.When.check(); err != nil {
		return fmt.Errorf("when: %w", err)
	}
	mode, err := parseMode(f.Mode)
	if err != nil {
		return err
	}
	if it := items[p]; it != nil {
		if f.Mode != "" && it.link != "" {
			return errors.New("a symbolic link has no mode")
		}
		if f.Mode != "" {
			it.mode = mode
		}
		it.when = f.When
		return f.live(b, it)
	}
	for other := range items {
		if !strings.HasPrefix(other, p+"/") {
			continue
		}
		if f.Mode == "" || !f.When.empty() || f.Live || len(f.Roles) > 0 {
			return errors.New("a directory takes a mode and nothing else; conditions belong to the files in it")
		}
		if b.dirModes == nil {
			b.dirModes = make(map[string]fs.FileMode)
		}
		b.dirModes[p] = mode
		return nil
	}
	return errors.New("the rune lays no such path")
}

// parseMode reads an octal mode of permission bits. Set-user-ID and its like
// are refused: a rune needs them for nothing.
func parseMode(s string) (fs.FileMode, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 {
		return 0, fmt.Errorf("mode %q: want octal permissions such as \"644\"", s)
	}
	return fs.FileMode(n), nil
}

// rootPath checks a path of rune.toml and returns it absolute.
func rootPath(s string) (string, error) {
	p := "/" + strings.TrimPrefix(s, "/")
	if p == "/" || p != path.Clean(p) || len(p) > maxPath || strings.ContainsRune(p, 0) {
		return "", fmt.Errorf("%q is no plain path such as \"/etc/hostname\"", s)
	}
	return p, nil
}

func validName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}
