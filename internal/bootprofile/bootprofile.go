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
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"viver.lan/internal/bootrecord"
	"viver.lan/internal/description"
	"viver.lan/internal/manifest"
	"viver.lan/internal/squashmap"
)

// minShare is how much of a file's own blocks was read, as a part of 1 in so many,
// for the file to be moved. Less of a large one lies in a few pieces wherever it is, and
// may have been read along with something else.
const minShare = 8

// Order returns the paths of those files that were read, in the order of the record. A
// kernel reads whole blocks: a file of which no block is in the record was not read, though
// it shares a page with one that was. A fragment was read for one of the small files in it;
// which one nobody knows, so all are there; not the larger ones that only end in it.
func Order(r bootrecord.Record, files []squashmap.File) []string {
	when := moments(r)
	type read struct {
		path  string
		begin int64 // the moment of the block that was read first
	}
	var reads []read
	for _, f := range files {
		if begin := when.file(f); begin < never {
			reads = append(reads, read{f.Path, begin})
		}
	}
	slices.SortStableFunc(reads, func(a, b read) int { return cmp.Compare(a.begin, b.begin) })
	paths := make([]string, len(reads))
	for i, r := range reads {
		paths[i] = r.path
	}
	return paths
}

// times maps each unit of the disk that was read to its place in the record.
type times map[int64]int64

// never is the time of what was not read.
const never int64 = math.MaxInt64

func moments(r bootrecord.Record) times {
	when := make(times)
	for _, part := range r.Ranges {
		for u := part.Start; u < part.Start+part.Count; u++ {
			when[u] = int64(len(when))
		}
	}
	return when
}

// file returns when the first block of a file was read.
func (when times) file(f squashmap.File) int64 {
	own := f.Blocks
	if f.Fragment && len(own) > 1 {
		own = own[:len(own)-1]
	}
	begin := never
	var size, read int64
	for _, b := range own {
		size += b.Length
		if t := when.block(b); t < never {
			begin, read = min(begin, t), read+b.Length
		}
	}
	if read*minShare < size {
		return never
	}
	return begin
}

// block returns when all of a block had been read.
func (when times) block(b squashmap.Extent) (last int64) {
	for u := b.Offset / bootrecord.Unit; u*bootrecord.Unit < b.Offset+b.Length; u++ {
		t, read := when[u]
		if !read {
			return never
		}
		last = max(last, t)
	}
	return last
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
		fmt.Sprintf("Image %s (%s, kernel %s), infohash %s, on %s:", m.Name, m.Distribution, m.KernelRelease, m.Infohash, now.Format(time.DateOnly)),
		fmt.Sprintf("%d of %d files; %.1f MB of the disk, %.1f MB in whole pieces.", len(paths), len(files), float64(r.Bytes())/1e6,
			float64(int64(len(r.Pieces(m.PieceLength, 0)))*m.PieceLength)/1e6), // the root is the payload's first file
	}}, nil
}

func describe(image string) (*manifest.Manifest, error) {
	f, err := description.Read(description.In(image))
	if err != nil {
		return nil, fmt.Errorf("%s is no image: %w", image, err)
	}
	m, _, err := f.Decode()
	return m, err
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
