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

	"viver.lan/internal/accounts"
)

const (
	manifestName = "rune.toml"
	templateExt  = ".tmpl"
	defaultOrder = 50
	maxManifest  = 1 << 20 // the keys of some hundred users
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
	added bool     // it came to a running system
	roles []string // laid while the node holds one of them, by @vrune
}

// runeTOML is the layout of rune.toml.
type runeTOML struct {
	Version     int               `toml:"version"`
	Name        string            `toml:"name"`
	Description string            `toml:"description"`
	Order       int               `toml:"order"`
	Executable  []string          `toml:"executable"`
	Symlinks    map[string]string `toml:"symlinks"`
	When        Conditions        `toml:"when"`
	Requires    Requires          `toml:"requires"`
	File        []fileTOML        `toml:"file"`
	User        []accounts.User   `toml:"user"`
	Group       []accounts.Group  `toml:"group"`
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
		return Bundle{}, err
	}
	if err := m.check(folder); err != nil {
		return Bundle{}, inManifest(top.data, err)
	}
	b := Bundle{
		Name: m.Name, Description: m.Description, Order: m.Order, when: m.When, requires: m.Requires,
		hooks: make(map[Moment]hookProgram), tree: tree,
		accounts: accounts.Table{Users: m.User, Groups: m.Group},
	}
	items := make(map[string]*item)
	for _, name := range slices.Sorted(maps.Keys(tree)) {
		n := tree[name]
		dir, rest, _ := strings.Cut(name, "/")
		switch {
		case dir == "files" && rest != "":
			it, err := newItem(rest, n)
			if err != nil {
				return Bundle{}, err
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
		return Bundle{}, inManifest(top.data, err)
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
	file := "files/" + name
	if strings.HasSuffix(it.path, "/") {
		return nil, fmt.Errorf("%s: a template needs a name before %s", file, templateExt)
	}
	if len(n.data) > maxTemplate {
		return nil, fmt.Errorf("%s: a template of %d bytes; the limit is %d", file, len(n.data), maxTemplate)
	}
	var err error
	if it.tmpl, err = parseTemplate(file, text(n.data)); err != nil {
		return nil, err
	}
	if strings.Contains(it.path, "{{") {
		it.name, err = parseTemplate("name of "+file, it.path)
	}
	return it, err
}

// text is what a person typed, whichever editor was used: without the byte
// order mark and the carriage returns of other systems.
func text(data []byte) string {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	return string(bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n")))
}

// parseManifest reads a rune.toml. Its errors name file and line.
func parseManifest(data []byte) (*runeTOML, error) {
	if len(data) > maxManifest {
		return nil, fmt.Errorf("%s: %d bytes; the limit is %d", manifestName, len(data), maxManifest)
	}
	var v struct {
		Version int `toml:"version"`
	}
	// By itself first: another version may have keys that this one does not know.
	if toml.Unmarshal([]byte(text(data)), &v) == nil && v.Version != 0 && v.Version != knownVersion {
		return nil, inManifest(data, at(fmt.Errorf("%d; this VIVER knows version %d of %s", v.Version, knownVersion, manifestName), "version"))
	}
	m := &runeTOML{Order: defaultOrder}
	dec := toml.NewDecoder(strings.NewReader(text(data))).DisallowUnknownFields()
	err := dec.Decode(m)
	var unknown *toml.StrictMissingError
	var syntax *toml.DecodeError
	switch {
	case errors.As(err, &unknown) && len(unknown.Errors) > 0:
		line, _ := unknown.Errors[0].Position()
		return nil, fmt.Errorf("%s:%d: no such key: %s", manifestName, line, strings.Join(unknown.Errors[0].Key(), "."))
	case errors.As(err, &syntax):
		line, _ := syntax.Position()
		return nil, fmt.Errorf("%s:%d: %w", manifestName, line, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", manifestName, err)
	}
	return m, nil
}

func (m *runeTOML) check(folder string) error {
	switch {
	case CheckName(m.Name) != nil:
		return at(CheckName(m.Name), "name")
	case m.Name != folder:
		return at(fmt.Errorf("%q, but the folder is called %q", m.Name, folder), "name")
	case m.Order < 0 || m.Order > 99:
		return at(fmt.Errorf("%d: want 0 to 99", m.Order), "order")
	}
	if err := m.When.check(); err != nil {
		return at(err, "when")
	}
	if err := m.Requires.check(); err != nil {
		return at(err, "requires")
	}
	return m.checkAccounts()
}

// complete adds what rune.toml says about paths to the items found.
func (m *runeTOML) complete(b *Bundle, items map[string]*item) error {
	if err := m.completeLive(b); err != nil {
		return err
	}
	for name, link := range m.Symlinks {
		p, err := rootPath(name)
		if err != nil {
			return at(err, "symlinks", name)
		}
		if link == "" || len(link) > maxPath || strings.ContainsRune(link, 0) {
			return at(fmt.Errorf("leads to %q", link), "symlinks", name)
		}
		if items[p] != nil {
			return at(errors.New("is in files/ too"), "symlinks", name)
		}
		items[p] = &item{path: p, link: link}
	}
	for _, name := range m.Executable {
		p, err := rootPath(name)
		if err != nil {
			return at(err, "executable")
		}
		it := items[p]
		if it == nil || it.link != "" {
			return at(fmt.Errorf("no file %s in files/", p), "executable")
		}
		it.mode = 0o755
	}
	for i, f := range m.File {
		if err := f.complete(b, items); err != nil {
			return at(err, "file", i)
		}
	}
	return nil
}

func (f fileTOML) complete(b *Bundle, items map[string]*item) error {
	p, err := rootPath(f.Path)
	if err != nil {
		return at(err, "path")
	}
	if err := f.When.check(); err != nil {
		return at(err, "when")
	}
	mode, err := parseMode(f.Mode)
	if err != nil {
		return at(err, "mode")
	}
	if it := items[p]; it != nil {
		if f.Mode != "" && it.link != "" {
			return at(errors.New("a symbolic link has none"), "mode")
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
			return fmt.Errorf("%s is a directory, which takes a mode and nothing else; conditions belong to the files in it", p)
		}
		if b.dirModes == nil {
			b.dirModes = make(map[string]fs.FileMode)
		}
		b.dirModes[p] = mode
		return nil
	}
	return at(fmt.Errorf("the rune lays no %s", p), "path")
}

// parseMode reads an octal mode of permission bits. Set-user-ID and its like
// are refused: a rune needs them for nothing.
func parseMode(s string) (fs.FileMode, error) {
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 {
		return 0, fmt.Errorf("%q: want octal permissions such as \"644\"", s)
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
