// Package bootprofile is about the files that a Linux reads while it boots. An image
// whose root file system begins with them, in the order in which they are read, needs
// fewer pieces to boot, nearly all in a row.
//
// A profile is made of a boot record, which knows ranges of one root disk, and is
// a text with the path of a file in each line: it holds for the next build of a tree that
// has changed too. It is advice: a path that is no longer there, or was
// never read, costs nothing but order. The invariant: what Write writes, Parse reads
// as the same paths, whatever bytes they consist of.
package bootprofile

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"viver.lan/internal/bootrecord"
	"viver.lan/internal/manifest"
	"viver.lan/internal/squashmap"
)

// Order returns the paths of those files that have a part in the record, in its order.
// A block that holds several small files was read for one of them; which one nobody
// knows, so all of them are there.
func Order(r bootrecord.Record, files []squashmap.File) []string {
	parts := placed(files)
	var paths []string
	taken := make(map[string]bool)
	for _, read := range r.Ranges {
		begin, end := read.Start*bootrecord.Unit, (read.Start+read.Count)*bootrecord.Unit
		for _, p := range touched(parts, begin, end) {
			if !taken[p.path] {
				taken[p.path] = true
				paths = append(paths, p.path)
			}
		}
	}
	return paths
}

// part is one extent of a file.
type part struct {
	squashmap.Extent
	path string
}

func (p part) end() int64 { return p.Offset + p.Length }

// placed lists all parts of files in the order in which they lie on the disk.
func placed(files []squashmap.File) []part {
	var parts []part
	for _, f := range files {
		for _, e := range []squashmap.Extent{f.Blocks, f.Fragment} {
			if e.Length > 0 {
				parts = append(parts, part{e, f.Path})
			}
		}
	}
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(a.end(), b.end()) })
	return parts
}

// touched returns the parts that have a byte from begin to end. Parts do not overlap,
// unless they are the same: files with equal content.
func touched(parts []part, begin, end int64) []part {
	first, _ := slices.BinarySearchFunc(parts, begin, func(p part, begin int64) int { return cmp.Compare(p.end(), begin+1) })
	last := first
	for last < len(parts) && parts[last].Offset < end {
		last++
	}
	return parts[first:last]
}

// Profile is the files of a boot.
type Profile struct {
	// Comments say where it comes from, for people: one line each.
	Comments []string
	// Paths in the order in which they were read, without the slash before them.
	Paths []string
}

// Make makes a profile of the boot record of a machine that booted an image; image is
// its directory, record the encoded one.
func Make(image string, record []byte, now time.Time) (Profile, error) {
	m, err := describe(image)
	if err != nil {
		return Profile{}, err
	}
	r, err := bootrecord.Decode(record, m.Infohash, m.RootFile().Size)
	if err != nil {
		return Profile{}, err
	}
	files, err := list(filepath.Join(image, m.RootFile().Name))
	if err != nil {
		return Profile{}, err
	}
	paths := Order(r, files)
	if len(paths) == 0 {
		return Profile{}, errors.New("the machine read no file of the image until it was up")
	}
	return Profile{Paths: paths, Comments: []string{
		"What a machine reads of its root disk until it is up, in that order: for viver image build --profile.",
		fmt.Sprintf("Image %s (%s, kernel %s), infohash %s, on %s: %d of %d files, %.1f MB read.", m.Name, m.Distribution, m.KernelRelease, m.Infohash,
			now.UTC().Format(time.DateOnly), len(paths), len(files), float64(r.Bytes())/1e6),
	}}, nil
}

func describe(image string) (*manifest.Manifest, error) {
	f, err := os.Open(filepath.Join(image, manifest.File))
	if err != nil {
		return nil, fmt.Errorf("%s is no image: %w", image, err)
	}
	defer f.Close()
	return manifest.Read(f)
}

func list(root string) ([]squashmap.File, error) {
	f, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return squashmap.Read(f, info.Size())
}

// Write writes a profile as a text.
func (p Profile) Write(w io.Writer) error {
	b := bufio.NewWriter(w)
	for _, c := range p.Comments {
		fmt.Fprintf(b, "# %s\n", strings.ReplaceAll(c, "\n", " "))
	}
	for _, p := range p.Paths {
		fmt.Fprintln(b, line(p))
	}
	return b.Flush()
}

// line returns a path as a line: as it is, or in Go's quotes where that would not
// come back.
func line(name string) string {
	plain := "/" + name
	if !utf8.ValidString(plain) || strings.TrimSpace(plain) != plain || strings.ContainsFunc(plain, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(plain)
	}
	return plain
}

// Parse returns the paths of a profile, each once, without the slash before it.
func Parse(text string) ([]string, error) {
	var paths []string
	taken := make(map[string]bool)
	number := 0
	for l := range strings.Lines(text) {
		number++
		l = strings.TrimSpace(l)
		if l == "" || strings.HasPrefix(l, "#") {
			continue
		}
		name, err := parseLine(l)
		if err != nil {
			return nil, fmt.Errorf("profile, line %d: %w", number, err)
		}
		if !taken[name] {
			taken[name] = true
			paths = append(paths, name)
		}
	}
	return paths, nil
}

func parseLine(l string) (string, error) {
	if strings.HasPrefix(l, `"`) {
		quoted, err := strconv.Unquote(l)
		if err != nil {
			return "", fmt.Errorf("%.80q is not quoted as Go quotes", l)
		}
		l = quoted
	}
	if !strings.HasPrefix(l, "/") || path.Clean(l) == "/" {
		return "", fmt.Errorf("%.80q is no file: want a path that begins with a slash", l)
	}
	return strings.TrimPrefix(path.Clean(l), "/"), nil
}
